"""Keys of plans: what differs between two, and how that is said."""

import dataclasses

import pytest

from ck_mlperf.machine.gpus import Gpu
from ck_mlperf.tensorrt.key import PlanKey, compare_keys, describe_gpu, explain_reuse

from .conftest import KEY


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
