"""What tags ask for; `test/package/` builds plans by them."""

from __future__ import annotations

import dataclasses

import pytest

from ck_mlperf.catalog.kernel import Entry
from ck_mlperf.catalog.request import Request, read_request, source_tags
from ck_mlperf.common.errors import UserError


def read(tags: str, **others):
    return read_request(set(tags.split(",")), **others)


def test_the_tags_of_2019():
    request = read("model,tensorrt,resnet,converted-from-onnx,fp32,maxbatch.32")
    assert request == Request(
        frozenset({"resnet"}), "fp32", "uint8", "class", max_batch=32, flavour=None
    )
    assert request.plan_tags("tensorrt-10") == {
        "model", "tensorrt", "image-classification", "converted-from-onnx", "resnet", "fp32",
        "maxbatch.32", "input.uint8", "output.class", "tensorrt-10",
    }  # fmt: skip


def test_defaults_and_other_models():
    request = read("model,tensorrt")
    assert (request.source, request.precision, request.max_batch) == ({"digits"}, "fp32", 1)
    assert read("model,tensorrt", max_batch=8).max_batch == 8
    assert read("model,tensorrt,maxbatch.2", max_batch=8).max_batch == 2
    request = read("model,tensorrt,squeezenet1_1,trained,int8,maxbatch.200,tensorrt-8,input.fp32")
    assert request.source == {"squeezenet1_1", "trained"}
    assert (request.precision, request.max_batch) == ("int8", 200)
    assert (request.flavour, request.input) == ("tensorrt-8", "fp32")


def test_tf32_takes_the_file_of_fp32():
    tags = read("model,tensorrt,digits,tf32").conversion_tags()
    assert "fp32" in tags
    assert "tf32" not in tags
    assert {"model", "onnx", "converted-from-onnx", "digits"} <= tags


@pytest.mark.parametrize(
    ("tags", "samples"),
    [
        ("fp32", "uint8"),
        ("int8", "uint8"),
        ("int8,input.int8", "int8"),
        ("fp16,input.fp16", "fp16"),
        ("int8,input.fp32", "fp32"),
        ("fp16,input.uint8", "uint8"),
    ],
)
def test_what_samples_are_is_the_plans_and_not_the_files(tags, samples):
    """Images are prepared before the plan, of what its first layer computes in."""
    request = read(f"model,tensorrt,digits,{tags}")
    assert request.input == samples
    assert [tag for tag in request.plan_tags(None) - {None} if tag.startswith("input.")] == [
        f"input.{samples}"
    ]
    conversion = request.for_conversion()
    of_file = "input.fp32" if samples == "fp32" else "input.native"
    assert {t for t in conversion.conversion_tags() if t.startswith("input.")} == {of_file}
    assert dataclasses.replace(conversion, input=samples) == request


@pytest.mark.parametrize(
    ("precision", "samples"),
    [("fp16", "int8"), ("fp32", "int8"), ("int8", "fp16"), ("tf32", "fp16")],
)
def test_samples_of_another_precision(precision, samples):
    said = f"input.{samples} is the input of a plan in {samples}, and {precision} was asked for"
    with pytest.raises(UserError, match=f"^{said}"):
        read(f"model,tensorrt,digits,{precision},input.{samples}")


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (
            "model,tensorrt,digits,input.native",
            "input.native: the input of a plan is input.uint8 or input.int8 or input.fp16 or "
            "input.fp32",
        ),
        (
            "model,onnx,converted-from-onnx,digits,fp16,input.fp16",
            "input.fp16: the input of a converted file is input.uint8 or input.fp32 or "
            "input.native",
        ),
        (
            "model,tensorrt,digits,input.uint16",
            "input.uint16: the input of a plan is input.uint8 or input.int8 or input.fp16 or "
            "input.fp32",
        ),
    ],
)
def test_an_input_that_there_is_not(tags, message):
    with pytest.raises(UserError) as raised:
        read(tags)
    assert str(raised.value) == message


def test_tags_of_cks_own_are_not_the_models():
    entry = Entry("1", {"tags": ["model", "onnx", "image-classification", "resnet", "trained",
                               "host-os-linux-64", "target-os-linux-64", "64bits", "v0",
                               "v5.12"]})  # fmt: skip
    assert source_tags(entry) == {"resnet", "trained"}


@pytest.mark.parametrize(
    "tags",
    ["fp32,fp16", "input.fp32,input.uint8", "output.class,output.scores", "maxbatch.1,maxbatch.2",
     "tensorrt-8,tensorrt-rtx", "maxbatch.0", "maxbatch.", "maxbatch.-1", "maxbatch.1.5"],
)  # fmt: skip
def test_tags_that_contradict_each_other(tags):
    with pytest.raises(UserError):
        read(f"model,tensorrt,digits,{tags}")
