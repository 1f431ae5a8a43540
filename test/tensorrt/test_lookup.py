"""When a plan is reused, and when it is built again."""

import json
import shutil
import time
from pathlib import Path

import onnx
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.machine.gpus import Gpu
from ck_mlperf.tensorrt.api import make_flavour
from ck_mlperf.tensorrt.build import build_plan
from ck_mlperf.tensorrt.key import Target
from ck_mlperf.tensorrt.lookup import look_up
from ck_mlperf.tensorrt.plan_file import PlanError, read_plan, read_sidecar, sidecar_path

from ..builders.plans import A100
from .conftest import build

OLD_PLANS = Path(__file__).resolve().parents[1] / "data" / "plans"


def explain(request):
    return look_up(request).explain()


def test_plan_is_reused(rtx, make_request):
    request = make_request()
    assert "not reused: there is no plan at" in build(request)
    before = request.output.stat().st_mtime_ns
    assert "reused because all 20 parts of the key agree" in build(request)
    assert request.output.stat().st_mtime_ns == before
    assert explain(request).startswith("reused because")


@pytest.mark.parametrize(
    ("flavour", "version", "limits"),
    [
        ("tensorrt", "8.6.1", {"builder_level": 3, "workspace_bytes": 1 << 30}),
        ("tensorrt", "10.13.0.35", {"tiling_level": 1, "aux_streams": 0}),
        ("tensorrt", "11.3.0.12", {}),
        ("tensorrt_rtx", "1.7.1.116", {}),
    ],
)
def test_plans_of_earlier_code_are_reused(make_request, flavour, version, limits):
    """test/data/plans was written when the library was still called tensorrt_helper."""
    plan = OLD_PLANS / f"{flavour}-{version}.plan"
    model = OLD_PLANS / "small_int8.onnx"
    request = make_request(
        model=model, output=plan, precision="int8", max_batch=8, opt_batch=4, **limits
    )
    gpus = [Gpu(*A100)] if flavour == "tensorrt" else []
    found = look_up(request, make_flavour(flavour, version), lambda: gpus)
    assert found.faults == []
    assert read_plan(plan, Target(flavour, version, Gpu(*A100))) == plan.read_bytes()
    old = json.loads(sidecar_path(plan).read_text())
    assert read_sidecar(plan).to_dict() == old
    assert list(found.key.to_dict()) == list(old["key"])


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"max_batch": 8}, "max_batch is 8, the plan was built with 4"),
        ({"opt_batch": 2}, "opt_batch is 2, the plan was built with 4"),
        ({"precision": "tf32"}, "precision is tf32, the plan was built with fp32"),
        ({"compute_capabilities": ("8.9",)}, "gpu.compute_capabilities is [8.9], the plan was"),
        ({"workspace_bytes": 1 << 28}, "options.workspace_bytes is 268435456, the plan was"),
        ({"builder_level": 2}, "options.builder_level is 2, the plan was built with none"),
        ({"aux_streams": 0}, "options.aux_streams is 0, the plan was built with none"),
    ],
    ids=str,
)
def test_other_request_is_built_anew(rtx, make_request, changes, difference):
    build(make_request())
    said = build(make_request(**changes))
    assert f"not reused: {difference}" in said
    assert "built with TensorRT for RTX" in said
    assert "reused because" in build(make_request(**changes))


def test_what_samples_are_is_part_of_the_key(build_fake, make_request, digits):
    """Images, or what the file itself takes: float32."""
    for samples in ("uint8", "fp32"):
        _, sidecar = build_fake("10.13.0.35", model=digits, input=samples)
        assert sidecar.key.input == samples
        assert sidecar.recipe.input.dtype == "float32"
    other = make_request(flavour="tensorrt", model=digits, input="uint8")
    assert look_up(other).faults == ["input is uint8, the plan was built with fp32"]


def test_changed_model_or_recipe_is_built_anew(rtx, make_request, tmp_path):
    request = make_request()
    model = tmp_path / "copy.onnx"
    shutil.copy(request.model, model)
    shutil.copy(request.model.with_suffix(".json"), model.with_suffix(".json"))
    request = make_request(model=model)
    build(request)
    recipe = model.with_suffix(".json")
    recipe.write_text(recipe.read_text().replace('"small"', '"smaller"'))
    assert "not reused: recipe_sha256 is" in build(request)
    assert read_sidecar(request.output).recipe.name == "smaller"
    onnx_model = onnx.load(model)
    onnx_model.graph.name = "another"
    onnx.save(onnx_model, model)
    assert "not reused: onnx_sha256 is" in explain(request)


@pytest.mark.parametrize("spoil", ["cut", "flip", "no sidecar", "bad sidecar", "other plan"])
def test_damaged_plan_is_built_anew(rtx, make_request, tmp_path, spoil):
    request = make_request()
    build(request)
    good = request.output.read_bytes()
    if spoil == "cut":
        request.output.write_bytes(good[:-9])
    elif spoil == "flip":
        request.output.write_bytes(good[:500] + bytes([good[500] ^ 8]) + good[501:])
    elif spoil == "no sidecar":
        sidecar_path(request.output).unlink()
    elif spoil == "bad sidecar":
        sidecar_path(request.output).write_text('{"format": 1}')
    else:  # killed between the plan and its sidecar
        other = make_request(output=tmp_path / "other.plan", max_batch=9)
        build_plan(other, lambda line: None)
        request.output.write_bytes(other.output.read_bytes())
    with pytest.raises(PlanError):
        read_plan(request.output, Target("tensorrt_rtx", rtx, None))
    assert "not reused: " in build(request)
    assert request.output.read_bytes() == good
    assert "reused because" in build(request)


def test_conversion_is_part_of_the_key(rtx, make_request, tmp_path):
    request = make_request(model=tmp_path / "m.onnx", precision="int8")
    request.model.write_bytes(b"any")
    conversion = {
        "source_sha256": "a" * 64,
        "precision": "int8",
        "calibration": {"images_sha256": "b" * 64, "count": 150},
    }
    request.model.with_suffix(".json").write_text(json.dumps({"conversion": conversion}))
    key = look_up(request).key
    assert key.source_sha256 == "a" * 64
    assert key.calibration == {"images_sha256": "b" * 64, "count": 150}
    with pytest.raises(UserError, match=r"converted to int8, .* not what tf32 is built from"):
        look_up(make_request(model=request.model, precision="tf32"))


def test_a_recipe_that_is_not_json(rtx, make_request, tmp_path):
    model = tmp_path / "m.onnx"
    model.with_suffix(".json").write_text("recipe: yes")
    with pytest.raises(UserError, match=r"m\.json: not JSON: .*Convert the model again"):
        look_up(make_request(model=model))


def test_hit_is_fast_and_imports_nothing_heavy(rtx, make_request, start_build, digits):
    request = make_request(model=digits)
    seconds, loaded = [], []
    for said in ("built with", "reused because"):
        started = time.perf_counter()
        process = start_build(request, PYTHONPROFILEIMPORTTIME="1")
        out, messages = process.communicate(timeout=60)
        seconds.append(time.perf_counter() - started)
        assert process.returncode == 0, messages
        assert said in out
        modules = (line.rpartition("|")[2].strip() for line in messages.splitlines())
        loaded.append({module.partition(".")[0] for module in modules})
    heavy = {"tensorrt_rtx_bindings", "onnx", "numpy"}
    assert heavy <= loaded[0]
    assert not heavy & loaded[1]
    assert seconds[1] < seconds[0]
