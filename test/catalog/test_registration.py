"""What is noted of a model that is registered with CK."""

from __future__ import annotations

import json
import sys

import pytest

from ck_mlperf.catalog import registration
from ck_mlperf.catalog.kernel import SOURCE, Dep, hook
from ck_mlperf.catalog.request import ONNX, PLAN, read_request
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.tags import split_tags
from ck_mlperf.models.model_file import read_states

from ..fakes.kernel import make_catalog

CONVERSION = {"precision": "int8", "input": "native", "output": "scores"}


def test_a_model_is_inspected_once_for_each_state_of_its_files(tmp_path):
    """The interpreter is a stand-in that prints a recipe and notes that it was asked."""
    python, asked, model = tmp_path / "python3", tmp_path / "asked", tmp_path / "model.onnx"
    recipe = {"name": "m", "weights": "trained", "sha256": "0", "external_files": ["w.bin"]}
    printed = tmp_path / "printed"
    python.write_text(f"#!/bin/sh\necho asked >> {asked}\ncat {printed}\n")
    python.chmod(0o755)
    deps = {"python": Dep({"uoa": "1", "dict": {"customize": {"full_path": str(python)}}})}
    (tmp_path / "w.bin").write_bytes(b"one")
    for changed in ("model.onnx", "model.json", "w.bin"):
        (tmp_path / changed).write_bytes(b"another")
        states = [[*state] for state in read_states(model, ["w.bin"])]
        printed.write_text(json.dumps({**recipe, "files": states}))
        for _ in range(2):
            assert registration.inspect_onnx(str(model), deps) == (recipe, states)
    assert len(asked.read_text().split()) == 3


def test_a_model_that_cannot_be_read_ends_the_command_with_its_own_words(tmp_path, capfd):
    environment = {"customize": {"full_path": sys.executable}}
    deps = {"python": Dep({"uoa": "1", "dict": environment})}
    python_site = {"customize": {"full_path": "", "python_site": str(SOURCE)}}
    deps["ck-mlperf"] = Dep({"uoa": "2", "dict": python_site})
    with pytest.raises(SystemExit) as ended:
        registration.inspect_onnx(str(tmp_path / "none.onnx"), deps)
    assert ended.value.code == 2
    assert "none.onnx" in capfd.readouterr().err


def test_what_is_registered_again_is_forgotten_first():
    catalog, kernel = make_catalog()
    kernel.add("old", "dataset", "/images")
    kernel.add("other", "dataset", "/images/more")
    version = registration.register(catalog, ["dataset.imagenet.val"], "/images", [["a.png", 1]])
    assert set(kernel.entries) == {"other"}
    again = registration.register(catalog, ["dataset.imagenet.val"], "/images", [["a.png", 1]])
    other = registration.register(catalog, ["dataset.imagenet.val"], "/images", [["a.png", 2]])
    assert version == again != other


def test_a_converted_file_and_a_plan_have_the_tags_that_ask_for_them():
    tags = "model,tensorrt,digits,int8,output.scores,maxbatch.8"
    request = read_request(split_tags(tags))
    recipe = {"name": "digits", "weights": "trained", "conversion": CONVERSION}
    tags = set(registration.list_onnx_tags(recipe))
    assert request.for_conversion().conversion_tags() <= tags | ONNX
    key = {"flavour": "tensorrt", "version": "10.3.0", "precision": "int8", "max_batch": 8,
           "input": "uint8"}  # fmt: skip
    tags = set(registration.list_plan_tags(key, recipe))
    assert request.plan_tags("tensorrt-10") <= tags | PLAN
    assert "trained" in tags


def test_a_model_that_was_not_converted_has_its_own_tags_only():
    recipe = {"name": "digits", "weights": "random"}
    assert registration.list_onnx_tags(recipe) == ["digits", "random"]
    key = {"flavour": "tensorrt_rtx", "version": "1.7.1", "precision": "fp32", "max_batch": 1}
    assert set(registration.list_plan_tags(key, recipe)) == {
        "digits", "random", "maxbatch.1", "tensorrt-rtx", "fp32",
    }  # fmt: skip


@pytest.mark.parametrize("odd", ["..", "a b", "$(touch owned)", "a,b", "", "\x1b[2J", "a" * 65])
def test_what_a_file_says_becomes_a_tag_only_if_it_can_be_one(odd):
    tags = ["model"]
    with pytest.raises(UserError, match="cannot be a tag"):
        registration.add_tags(tags, ["int8", odd])
    assert tags == ["model"]


@pytest.mark.parametrize("place", ["full_path", "customize"])
@pytest.mark.parametrize("path", ["/data/$(touch owned)", "/data/`x`", '/a"b', "/a;b", "/a\nb"])
def test_a_path_that_a_script_cannot_carry_is_refused(place, path, capsys):
    called = []
    request = {"full_path": path} if place == "full_path" else {"customize": {"full_path": path}}
    with pytest.raises(SystemExit) as ended:
        hook(called.append)(request)
    assert ended.value.code == 2
    assert "mean something to a shell" in capsys.readouterr().err
    assert not called


def test_a_path_with_a_space_is_taken():
    assert hook(lambda i: i["full_path"])({"full_path": "/data/My Images/é_1.5~"}) == (
        "/data/My Images/é_1.5~"
    )
