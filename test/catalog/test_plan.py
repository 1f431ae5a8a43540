"""The chain from tags to a plan: what is taken, and what is asked for again."""

from __future__ import annotations

import sys

import pytest

from ck_mlperf.catalog.host import Host, Tensorrt
from ck_mlperf.catalog.kernel import Catalog
from ck_mlperf.catalog.plan import PlanChain
from ck_mlperf.catalog.request import read_request
from ck_mlperf.catalog.step import Installation
from ck_mlperf.common.errors import UserError

from ..fakes.kernel import FakeKernel

PLAN_TAGS = (
    "model,tensorrt,image-classification,converted-from-onnx,fp32,input.uint8,output.class,"
    "maxbatch.1,tensorrt-rtx,digits"
)


@pytest.fixture
def kernel() -> FakeKernel:
    kernel = FakeKernel()
    kernel.packages["model-tensorrt-convert-from-onnx"] = {
        "tags": ["model", "tensorrt", "image-classification", "converted-from-onnx"],
        "variations": {name: {} for name in ("fp32", "input.uint8", "output.class", "maxbatch.1")},
    }
    return kernel


def make_chain(kernel, tags="model,tensorrt,digits") -> PlanChain:
    chain = PlanChain(Catalog(kernel), read_request(set(tags.split(","))), sys.executable)
    chain.host = Host((Tensorrt("tensorrt_rtx", "1.7.1"),), ())
    return chain


def add_source(kernel, uid: str = "source", tags: str = "digits") -> None:
    recipe = {"name": tags, "dataset": "digits", "sha256": "a" * 64}
    kernel.add(uid, f"model,onnx,image-classification,{tags}", f"/{uid}.onnx", recipe=recipe)


def test_a_plan_that_is_gone_is_built_again(kernel, capsys):
    kernel.add("plan", PLAN_TAGS, "/no/such/model.plan")
    make_chain(kernel).obtain()
    assert capsys.readouterr().out == "building again: /no/such/model.plan: the plan is gone\n"
    (request,) = kernel.installed
    assert request["data_uoa"] == "model-tensorrt-convert-from-onnx"
    assert request["extra_tags"] == "digits,tensorrt-rtx"
    assert request["env"] == {"ML_MODEL_MAX_BATCH_SIZE": "1"}


def test_random_weights_are_taken_where_they_are_asked_for(kernel):
    kernel.add("plan", PLAN_TAGS + ",random", "/no/such/model.plan")
    assert make_chain(kernel).find() == (None, [])
    assert make_chain(kernel, "model,tensorrt,digits,random").find() == (
        None, ["/no/such/model.plan: the plan is gone"]
    )  # fmt: skip


def test_a_source_is_not_chosen_among_several(kernel):
    add_source(kernel, "one", "digits")
    add_source(kernel, "two", "digits,other")
    with pytest.raises(UserError) as raised:
        make_chain(kernel).obtain()
    said = str(raised.value)
    assert "--deps.onnx=one" in said
    assert "--deps.onnx=two   other   (/two.onnx)" in said
    assert "ck install package:model-tensorrt-convert-from-onnx --tags=converted-from-onnx," in said
    assert kernel.installed == []


def test_the_installation_is_handed_the_chain_that_asked_for_it(kernel):
    """CK's hook knows the source and the host without asking again."""
    add_source(kernel)
    chain = make_chain(kernel)
    handed_over = []
    install = kernel._install_package

    def install_package(request):
        handed_over.append(PlanChain.of(Installation(make_hook_request(kernel))))
        return install(request)

    kernel._install_package = install_package
    chain.obtain()
    assert handed_over == [chain]
    assert chain.source.uid == "source"


def make_hook_request(kernel, tags=(), onnx="", **environment):
    deps = {
        "python": {"tags": "", "uoa": "py", "dict": {"customize": {"full_path": sys.executable}}},
        "onnx": {"tags": "model,onnx,image-classification", "uoa": onnx},
    }
    return {
        "ck_kernel": kernel,
        "deps": deps,
        "tags": ["model", "tensorrt", *tags],
        "install_env": environment,
        "customize": {},
    }


def test_what_a_user_installs_is_read_from_the_tags(kernel):
    add_source(kernel, "mine", "mine")
    request = make_hook_request(kernel, ["fp16"], onnx="mine", ML_MODEL_MAX_BATCH_SIZE="48")
    chain = PlanChain.of(Installation(request))
    assert chain.source.uid == "mine"
    assert (chain.request.precision, chain.request.max_batch) == ("fp16", 48)
    assert chain.request.source == frozenset()
    with pytest.raises(UserError, match=r"maxbatch\.8 and ML_MODEL_MAX_BATCH_SIZE=48 contradict"):
        PlanChain.of(
            Installation(make_hook_request(kernel, ["maxbatch.8"], ML_MODEL_MAX_BATCH_SIZE="48"))
        )


def test_what_is_installed_gets_a_folder_of_its_source(kernel):
    add_source(kernel, "mine", "my net")
    request = make_hook_request(kernel, ["fp16"])
    installation = Installation(request)
    source = Catalog(kernel).load_pinned("onnx", "mine")
    installation.set_name(source, {"fp16", "tensorrt-10"}, "my net, tensorrt-10")
    assert request["customize"]["extra_suggested_path"].startswith("-my_net-")
    assert request["customize"]["extra_suggested_path"].endswith("-tensorrt-10")
    assert request["customize"]["package_extra_name"] == " (my net, tensorrt-10)"
    assert request["tags"] == ["model", "tensorrt", "fp16", "my net", "tensorrt-10"]
