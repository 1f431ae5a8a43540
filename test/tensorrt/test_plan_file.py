"""Plans on disk: what is refused before a byte is deserialised, and what the user is told.

These need no TensorRT: to this module a plan is bytes.
"""

import dataclasses
import json
from pathlib import Path

import pytest

from ck_mlperf.machine.gpus import Gpu
from ck_mlperf.models.recipe import load_model_recipe
from ck_mlperf.tensorrt.api.interface import IoTensor
from ck_mlperf.tensorrt.key import PlanKey, Target, compare_keys
from ck_mlperf.tensorrt.plan_file import (
    PlanError,
    Sidecar,
    judge_plan,
    measure_plan,
    read_plan,
    read_sidecar,
    sidecar_path,
    write_plan,
)

from ..builders.plans import KEY

CONTENT = bytes(range(256)) * 40
ADA = Gpu("NVIDIA GeForce RTX 4090", "8.9")
A100 = Gpu("NVIDIA A100-SXM4-80GB", "8.0")
TARGET = Target("tensorrt_rtx", "1.7.1.116", ADA)


@pytest.fixture
def write(tmp_path, digits):
    """write(key): a plan and its sidecar, as a build leaves them."""

    def make(key: PlanKey = KEY, content: bytes = CONTENT) -> Path:
        recipe = dataclasses.replace(load_model_recipe(digits), max_batch=key.max_batch)
        tensors = [
            IoTensor("image", True, "uint8", (-1, 28, 28, 3)),
            IoTensor("class", False, "int32", (-1,)),
        ]
        build = {"seconds": 1.5, "peak_memory_bytes": 1 << 28, "log": ["INFO: x"], "layers": None}
        sidecar = Sidecar.of(key, content, recipe, tensors, build)
        write_plan(tmp_path / "model.plan", content, sidecar)
        return tmp_path / "model.plan"

    return make


def judge(plan, key=KEY):
    return judge_plan(plan, key, measure_plan(plan))


def test_sidecar_is_read_as_written(write):
    plan = write()
    sidecar = read_sidecar(plan)
    assert sidecar.key == KEY
    assert sidecar.plan_bytes == len(CONTENT)
    assert sidecar.recipe.name == "digits"
    assert sidecar.recipe.max_batch == 32
    assert sidecar.inputs == (IoTensor("image", True, "uint8", (-1, 28, 28, 3)),)
    data = json.loads(sidecar_path(plan).read_text())
    assert list(data) == ["format", "key", "plan", "recipe", "inputs", "outputs", "build"]
    assert data["outputs"] == [{"name": "class", "dtype": "int32", "shape": [-1]}]
    assert sidecar.to_dict() == data


def test_a_recipe_of_int8_input_is_read_as_written(write):
    plan = write()
    sidecar = read_sidecar(plan)
    spec = dataclasses.replace(sidecar.recipe.input, dtype="int8", step=0.0078125)
    recipe = dataclasses.replace(sidecar.recipe, input=spec)
    write_plan(plan, CONTENT, dataclasses.replace(sidecar, recipe=recipe))
    assert read_sidecar(plan).recipe == recipe


def test_whole_plan_is_given(write):
    assert read_plan(write(), TARGET) == CONTENT
    assert read_plan(write(), dataclasses.replace(TARGET, gpu=None)) == CONTENT


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:-1], "cut off: 10239 bytes in place of 10240"),
        (lambda content: b"", "cut off: 0 bytes"),
        (lambda content: content + b"x", "longer than what was built"),
        (lambda content: content[:99] + b"\0" + content[100:], "damaged or was replaced"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "damaged or was replaced"),
    ],
    ids=["cut", "empty", "longer", "byte", "bit"],
)
def test_changed_plan_is_refused(write, spoil, message):
    plan = write()
    plan.write_bytes(spoil(CONTENT))
    with pytest.raises(PlanError, match=rf"{message}.*--precision int8 --max-batch 32"):
        read_plan(plan, TARGET)
    assert message in judge(plan)[0]


@pytest.mark.parametrize(
    ("key", "target", "message"),
    [
        (
            {},
            {"flavour": "tensorrt", "version": "10.1"},
            "flavour is tensorrt, .*with tensorrt_rtx",
        ),
        ({}, {"version": "1.8"}, r"version is 1\.8, the plan was built with 1\.7\.1\.116"),
        ({}, {"gpu": A100}, r"GPU is NVIDIA A100.*8\.0\), .*compute capability 8\.6 or 8\.9"),
        (
            {"gpu": {"name": ADA.name, "compute_capability": "8.9"}},
            {"gpu": A100},
            r"GPU is NVIDIA A100.*, the plan was built on NVIDIA GeForce RTX 4090 .*8\.9",
        ),
    ],
)
def test_foreign_plan_is_refused(write, key, target, message):
    plan = write(dataclasses.replace(KEY, **key))
    with pytest.raises(PlanError, match=rf"{message}.*ck_mlperf\.tensorrt\.build"):
        read_plan(plan, dataclasses.replace(TARGET, **target))


def test_plan_for_the_gpu_that_built_it(write):
    key = dataclasses.replace(KEY, gpu={"name": ADA.name, "compute_capability": "8.9"})
    assert read_plan(write(key), TARGET) == CONTENT


def test_plan_that_is_not_there(tmp_path, write):
    with pytest.raises(PlanError, match=r"none\.plan: no such plan\. Build it"):
        read_plan(tmp_path / "none.plan", TARGET)
    assert judge(tmp_path / "none.plan") == [f"there is no plan at {tmp_path / 'none.plan'}"]
    plan = write()
    plan.unlink()
    with pytest.raises(PlanError, match=r"model\.plan: no such plan"):
        read_plan(plan, TARGET)


def test_plan_without_a_sidecar(write):
    plan = write()
    sidecar_path(plan).unlink()
    with pytest.raises(PlanError, match=r"model\.plan\.json: no such file\. Build it again"):
        read_plan(plan, TARGET)
    assert "model.plan.json: no such file" in judge(plan)[0]


def test_kill_between_plan_and_sidecar(write):
    """The new plan is in place, the old plan's sidecar still beside it."""
    plan = write()
    plan.write_bytes(CONTENT[::-1])
    assert "damaged or was replaced" in judge(plan)[0]


HOSTILE = {
    "no JSON": "plan: yes",
    "cut": None,
    "list": "[1, 2]",
    "empty": "",
    "not text": "\udcff\udcfe",
    "deep": "[" * 100_000,
    "number": "1e999",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_sidecar_that_is_none(write, name):
    plan = write()
    path = sidecar_path(plan)
    text = path.read_text()[:-200] if name == "cut" else HOSTILE[name]
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(PlanError, match=r"model\.plan\.json: not a plan's sidecar"):
        read_plan(plan, TARGET)
    assert judge(plan)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("format", 2),
        ("format", True),
        ("key", []),
        ("key.flavour", "tensorrt_llm"),
        ("key.version", None),
        ("key.precision", "fp8"),
        ("key.input", "float32"),
        ("key.input", None),
        ("key.max_batch", -1),
        ("key.max_batch", True),
        ("key.max_batch", 10**400),
        ("key.onnx_sha256", "1" * 63),
        ("key.gpu", {}),
        ("key.gpu", {"compute_capabilities": []}),
        ("key.gpu", {"compute_capabilities": [8.6]}),
        ("key.gpu", {"name": "a", "compute_capability": 8.6}),
        ("key.options", None),
        ("key.surplus", 1),
        ("plan", None),
        ("plan.sha256", "../../etc/passwd"),
        ("plan.bytes", "many"),
        ("plan.bytes", -1),
        ("recipe", {}),
        ("recipe.classes", "ten"),
        ("recipe.classes", 0),
        ("recipe.labels_offset", 7),
        ("recipe.input", {"name": "x"}),
        ("recipe.name", "../../.."),
        ("recipe.name", "$(touch owned)"),
        ("recipe.input.dtype", "int8"),  # without a step
        ("recipe.input.step", 0.5),  # of a type that has none
        ("recipe.mean", [1, 2]),
        ("recipe.mean", "abc"),
        ("recipe.mean", [1, 2, 10**400]),
        ("recipe.image", {"side": 10**9}),
        ("recipe.surplus", 1),
        ("recipe.max_batch", 33),
        ("inputs", []),
        ("inputs", [{"name": "x", "dtype": "uint8", "shape": ["a"]}]),
        ("outputs", [1]),
        ("build", "log"),
    ],
)
def test_sidecar_with_a_part_that_makes_no_sense(write, where, value):
    plan = write()
    path = sidecar_path(plan)
    data = json.loads(path.read_text())
    *outer, last = where.split(".")
    inner = data
    for name in outer:
        inner = inner[name]
    inner[last] = value
    path.write_text(json.dumps(data))
    with pytest.raises(PlanError, match=r"model\.plan\.json: not a plan's sidecar"):
        read_plan(plan, TARGET)
    assert judge(plan)


def test_sidecar_that_is_too_large(write):
    plan = write()
    with sidecar_path(plan).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PlanError, match="larger than"):
        read_plan(plan, TARGET)


def test_a_plan_of_another_key_is_not_the_one(write):
    plan = write()
    assert judge(plan) == []
    wanted = dataclasses.replace(KEY, max_batch=64, precision="fp16")
    assert judge(plan, wanted) == compare_keys(wanted, KEY)
    assert len(judge(plan, wanted)) == 2
