"""Building plans, really, with TensorRT for RTX."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ck_mlperf.common.errors import UserError
from ck_mlperf.tensorrt import plan_file
from ck_mlperf.tensorrt.build import build_plan
from ck_mlperf.tensorrt.key import Target
from ck_mlperf.tensorrt.plan_file import read_plan, read_sidecar

from .conftest import build, list_files

CAPABILITIES = ["8.0", "8.6", "8.9", "12.0", "12.1"]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "int8"])
def test_real_conversion_of_every_precision(rtx, make_request, precision):
    request = make_request(precision=precision)
    assert f"built with TensorRT for RTX {rtx}" in build(request)
    assert list_files(request) == ["model.plan", "model.plan.json", "model.plan.lock"]
    sidecar = read_sidecar(request.output)
    key = sidecar.key
    assert (key.flavour, key.version, key.precision) == ("tensorrt_rtx", rtx, precision)
    assert key.gpu == {"compute_capabilities": CAPABILITIES}
    assert key.options["flags"] == ([] if precision == "fp32" else ["TF32"])
    assert [tensor.to_dict() for tensor in sidecar.inputs] == [
        {"name": "image", "dtype": "uint8", "shape": [-1, 8, 8, 3]}
    ]
    assert [tensor.to_dict() for tensor in sidecar.outputs] == [
        {"name": "class", "dtype": "int32", "shape": [-1]}
    ]
    assert (sidecar.recipe.max_batch, sidecar.recipe.input.dtype) == (4, "uint8")
    assert sidecar.build["seconds"] > 0
    assert sidecar.build["peak_memory_bytes"] > 20 << 20
    assert any(line.startswith("INFO: Engine generation") for line in sidecar.build["log"])
    notes = [line for line in sidecar.build["log"] if line.startswith("NOTE: ")]
    assert any("times nothing" in note for note in notes)
    assert sidecar.build["layers"] is not None or any("layers: not known" in n for n in notes)
    content = read_plan(request.output, Target("tensorrt_rtx", rtx, None))
    assert content == request.output.read_bytes()


def test_digits_at_several_batches(rtx, make_request, digits, tmp_path):
    plans = set()
    for batch in (1, 30, 256):
        request = make_request(model=digits, output=tmp_path / f"{batch}.plan", max_batch=batch)
        build_plan(request, lambda line: None)
        sidecar = read_sidecar(request.output)
        assert (sidecar.key.max_batch, sidecar.key.opt_batch) == (batch, batch)
        assert sidecar.recipe.max_batch == batch
        plans.add(request.output.read_bytes())
    assert len(plans) == 3


def test_fp32_and_tf32_are_different_plans(rtx, make_request, tmp_path, digits):
    plans = []
    for precision in ("fp32", "tf32"):
        output = tmp_path / f"{precision}.plan"
        build_plan(make_request(model=digits, precision=precision, output=output), str)
        plans.append(output.read_bytes())
    assert plans[0] != plans[1]


@pytest.mark.parametrize("samples", ["int8", "fp16", "fp32"])
def test_samples_that_the_model_does_not_take_are_refused(rtx, make_request, samples):
    """This one takes uint8 itself, whatever its precision."""
    request = make_request(input=samples)
    match = rf"takes uint8: its samples cannot be {samples}\. Leave --input out.*--input native"
    with pytest.raises(UserError, match=match):
        build(request)
    assert list_files(request) == ["model.plan.lock"]


def test_fixed_batch(rtx, make_request, make_model):
    model = make_model(batch=3)
    with pytest.raises(UserError, match="has a fixed batch of 3: give --max-batch 3"):
        build(make_request(model=model, max_batch=4))
    build(make_request(model=model, max_batch=3))
    sidecar = read_sidecar(make_request().output)
    assert sidecar.inputs[0].shape == (3, 8, 8, 3)
    assert sidecar.outputs[0].shape == (3,)


@pytest.mark.parametrize("wanted", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("there", ["fp32", "fp16", "int8"])
def test_types_of_the_file_are_those_asked_for(rtx, make_request, make_model, there, wanted):
    request = make_request(model=make_model(there), precision=wanted)
    if there == wanted:
        build(request)
    else:
        with pytest.raises(UserError, match=f"has the types of {there}.*--precision {wanted}"):
            build(request)
        assert list_files(request) == ["model.plan.lock"]


def test_node_that_tensorrt_does_not_take_is_named(rtx, make_request, make_model):
    request = make_request(model=make_model(operator="Det"))
    match = r"small_fp32\.onnx: .*\n  node 'activation' \(Det\): .*\nReplace these operators"
    with pytest.raises(UserError, match=match):
        build(request)
    assert list_files(request) == ["model.plan.lock"]


def test_build_that_fails_says_why(rtx, make_request, digits):
    """TensorRT for RTX has no float32 matrix products for Turing."""
    match = r"could not build .*fp32:\n  .*Turing .*\nFor Turing .* convert the model to fp16"
    with pytest.raises(UserError, match=match):
        build(make_request(model=digits, compute_capabilities=("7.5",)))


def test_weights_in_other_files(rtx, make_request, tmp_path):
    weights = numpy_helper.from_array(np.ones((3 * 64, 10), np.float32), "weights")
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
        ],
        "outside",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.bin", size_threshold=0)
    image = {"side": 8, "crop": 1.0, "interpolation": "area", "channels": "rgb"}
    recipe = {"dataset": "digits", "image": image, "mean": [0, 0, 0], "scale": [1, 1, 1]}
    path.with_suffix(".json").write_text(json.dumps(recipe))
    with pytest.raises(UserError, match=r"keeps weights in other files \(m\.bin\)"):
        build(make_request(model=path))


def test_a_model_that_changes_after_it_was_looked_up(rtx, make_request, make_model, tmp_path):
    """Its key would be that of the old file in part."""
    path = tmp_path / "m.onnx"
    for suffix in (".onnx", ".json"):
        shutil.copy(make_model().with_suffix(suffix), path.with_suffix(suffix))

    def change(line):
        model = onnx.load(path)
        model.producer_version += "1"
        onnx.save(model, path)

    request = make_request(model=path)
    with pytest.raises(UserError, match="has changed since it was looked up"):
        build_plan(request, change)
    assert not request.output.exists()


def test_what_a_killed_write_leaves_is_removed(rtx, make_request):
    request = make_request()
    folder = request.output.parent
    folder.mkdir()
    for name in (".model.plan.a1b2c3d4", ".model.plan.json.a1b2c3_4", ".model.plan.b.a1b2c3d4"):
        (folder / name).write_bytes(b"half")
    (folder / "model.plan.lock").write_text("1\n")  # of the killed process: the kernel let go
    build(request)
    assert list_files(request) == [
        ".model.plan.b.a1b2c3d4",
        "model.plan",
        "model.plan.json",
        "model.plan.lock",
    ]


def test_full_disk_leaves_the_old_plan(rtx, make_request, monkeypatch):
    """The old plan still matches its sidecar; nothing of the new one stays."""
    build(make_request())
    old = make_request().output.read_bytes()

    def fail(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(plan_file, "write_file", fail)
    with pytest.raises(OSError, match="No space left"):
        build(make_request(max_batch=8))
    monkeypatch.undo()
    assert make_request().output.read_bytes() == old
    assert read_plan(make_request().output, Target("tensorrt_rtx", rtx, None)) == old
