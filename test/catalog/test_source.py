"""What is said of tags that no model has."""

from __future__ import annotations

import json

import pytest

from ck_mlperf.catalog.kernel import Dep
from ck_mlperf.catalog.program import resolve_model
from ck_mlperf.catalog.source import find_source_package
from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.settings import read_settings

from ..fakes.kernel import make_catalog


@pytest.fixture
def catalog(repository):
    """CK with the packages of this repository that bring or convert ONNX files."""
    catalog, kernel = make_catalog()
    for path in repository.glob("package/model-onnx-*/.cm/meta.json"):
        kernel.packages[path.parents[1].name] = json.loads(path.read_text())
    kernel.add("mine", "model,onnx,image-classification,efficientnet", recipe={})
    return catalog


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("resnet51", "none has resnet51; did you mean resnet50?"),
        ("efficentnet", "none has efficentnet; did you mean efficientnet?"),
        ("digits,fp61", "none has fp61; did you mean fp16?"),
        ("zzz", "none has zzz. See"),
        ("digits,fp16", "only converted files and plans have fp16: add converted-from-onnx"),
        ("digits,mobilenet", "the tags digits,image-classification,mobilenet,model,onnx. See"),
    ],
)
def test_unknown_tags(catalog, tags, wanted):
    with pytest.raises(UserError) as raised:
        find_source_package(catalog, tags.split(","))
    assert wanted in str(raised.value)


@pytest.mark.parametrize(
    "tags",
    ["model,onnx,digits", "model,onnx,digits,converted-from-onnx",
     "model,tensorrt,digits,converted-from-onnx,maxbatch.2"],
)  # fmt: skip
def test_a_run_wants_one_precision(catalog, tags):
    deps = {"weights": Dep({"tags": f"{tags},fp16,int8"}), "python": Dep({})}
    deps["python"].data["dict"] = {"customize": {"full_path": "/python"}}
    with pytest.raises(UserError, match="fp16 and int8: want one precision, not several"):
        resolve_model(catalog, deps, read_settings({}))


@pytest.mark.parametrize("tags", ["model,onnx,resnet51", "model,onnx,resnet51,converted-from-onnx"])
def test_a_run_names_the_nearest_model(catalog, tags):
    deps = {"weights": Dep({"tags": tags}), "python": Dep({})}
    deps["python"].data["dict"] = {"customize": {"full_path": "/python"}}
    with pytest.raises(UserError, match="none has resnet51; did you mean resnet50"):
        resolve_model(catalog, deps, read_settings({}))
