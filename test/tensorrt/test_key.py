"""Keys of plans: what differs between two, and how that is said."""

import dataclasses

import pytest

from ck_mlperf.machine.gpus import Gpu
from ck_mlperf.tensorrt.api import make_flavour
from ck_mlperf.tensorrt.key import (
    PlanKey,
    compare_keys,
    complete_key,
    describe_gpu,
    explain_reuse,
)

from ..builders.plans import KEY


def test_a_key_is_read_as_written():
    assert PlanKey.from_dict(KEY.to_dict()) == KEY


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        (
            {"version": "1.8.0"},
            ["version is 1.8.0, the plan was built with 1.7.1.116"],
        ),
        (
            {"max_batch": 64, "precision": "fp16"},
            [
                "precision is fp16, the plan was built with int8",
                "max_batch is 64, the plan was built with 32",
            ],
        ),
        (
            {"onnx_sha256": "9" * 64},
            ["onnx_sha256 is 9999999999999999..., the plan was built with 1111111111111111..."],
        ),
        (
            {"gpu": {"name": "A", "compute_capability": "8.0"}},
            [
                "gpu.name is A, the plan was built with none",
                "gpu.compute_capability is 8.0, the plan was built with none",
                "gpu.compute_capabilities is none, the plan was built with [8.6, 8.9]",
            ],
        ),
        (
            {"options": {"flags": [], "workspace_bytes": None}},
            ["options.flags is [], the plan was built with [TF32]"],
        ),
        (
            {"calibration": None},
            [
                "calibration.images_sha256 is none, the plan was built with 3333333333333333...",
                "calibration.count is none, the plan was built with 150",
                "calibration.method is none, the plan was built with minmax",
            ],
        ),
    ],
)
def test_differences_are_named(changes, lines):
    assert compare_keys(dataclasses.replace(KEY, **changes), KEY) == lines


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(PlanKey)])
def test_every_part_of_the_key_counts(field):
    value = getattr(KEY, field)
    other = {"x": 1} if isinstance(value, dict) else f"{value}0" if value else "4" * 64
    wanted = dataclasses.replace(KEY, **{field: other})
    differences = compare_keys(wanted, KEY)
    assert differences
    assert all(line.startswith(field) for line in differences)


def test_reason_in_words():
    assert explain_reuse(KEY, []).startswith("reused because all 15 parts of the key agree: ")
    assert "calibration.count 150" in explain_reuse(KEY, [])
    assert explain_reuse(KEY, ["a is 1", "b is 2"]) == "not reused: a is 1; b is 2"


def test_the_gpu_in_words():
    gpu = {"name": "NVIDIA L4", "compute_capability": "8.9"}
    assert describe_gpu(gpu) == str(Gpu("NVIDIA L4", "8.9"))
    assert describe_gpu(KEY.gpu) == "compute capability 8.6, 8.9"


NO_LIMITS = dict.fromkeys(("workspace_bytes", "builder_level", "aux_streams", "tiling_level"))


def make_old_key(flavour):
    """A key as it was written before plans had `input`, and their builder layouts to choose."""
    options = flavour.list_options("fp16", NO_LIMITS)
    old = {name: options[name] for name in ("typing", "flags", "profiling_verbosity")}
    key = dataclasses.replace(KEY, flavour=flavour.name, options=old | {"workspace_bytes": None})
    data = key.to_dict()
    del data["input"]
    return data


@pytest.mark.parametrize(("dtype", "word"), [("float32", "fp32"), ("uint8", "uint8")])
def test_a_key_of_before_is_completed_if_its_plan_would_be_the_same(dtype, word):
    flavour = make_flavour("tensorrt_rtx", "1.7.1")
    found = PlanKey.from_dict(complete_key(make_old_key(flavour), dtype))
    options = flavour.list_options("fp16", NO_LIMITS)
    assert found == dataclasses.replace(KEY, input=word, options=options)
    assert complete_key(found.to_dict(), dtype) == found.to_dict()


def test_a_key_of_before_whose_plan_would_be_another_one():
    """Other types have layouts to choose from; contexts of 8.6 did not share a profile."""
    with pytest.raises(ValueError, match="the parts of the key"):
        PlanKey.from_dict(complete_key(make_old_key(make_flavour("tensorrt_rtx", "1.7")), "int8"))
    flavour = make_flavour("tensorrt", "8.6.1")
    found = PlanKey.from_dict(complete_key(make_old_key(flavour), "float32"))
    wanted = dataclasses.replace(found, options=flavour.list_options("fp16", NO_LIMITS))
    (difference,) = compare_keys(wanted, found)
    assert difference.startswith("options.previews is [PROFILE_SHARING_0806]")
