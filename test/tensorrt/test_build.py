"""Building plans, really, with TensorRT for RTX; what surrounds a build, with a stand-in."""

import argparse
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ck_mlperf.common.errors import UserError
from ck_mlperf.tensorrt.build import BuildRequest, build_plan, explain, look_up, parse_request
from ck_mlperf.tensorrt.plan import PlanError, Target, read_plan, read_sidecar, sidecar_path

CAPABILITIES = ["8.0", "8.6", "8.9", "12.0", "12.1"]


def build(request):
    """What the user is told."""
    lines = []
    build_plan(request, lines.append)
    return "\n".join(lines)


def list_files(request):
    """What is in the plan's folder; what builds leave for later ones is not."""
    names = (path.name for path in request.output.parent.iterdir())
    return sorted(name for name in names if name != "plan-build-times.json")


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
    assert 0 < sidecar.build["seconds"] < 100
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


def test_plan_is_reused(rtx, make_request):
    request = make_request()
    assert "not reused: there is no plan at" in build(request)
    before = request.output.stat().st_mtime_ns
    assert "reused because all 20 parts of the key agree" in build(request)
    assert request.output.stat().st_mtime_ns == before
    assert explain(request).startswith("reused because")


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


@pytest.mark.parametrize("samples", ["int8", "fp16", "fp32"])
def test_samples_that_the_model_does_not_take_are_refused(rtx, make_request, samples):
    """This one takes uint8 itself, whatever its precision."""
    request = make_request(input=samples)
    match = rf"takes uint8: its samples cannot be {samples}\. Leave --input out.*--input native"
    with pytest.raises(UserError, match=match):
        build(request)
    assert list_files(request) == ["model.plan.lock"]


def test_the_command_line_is_the_request(tmp_path):
    line = "--model m.onnx --output m.plan --precision int8 --max-batch 8"
    request = parse_request(argparse.ArgumentParser(), line.split())
    paths = (Path("m.onnx"), Path("m.plan"))
    assert request == BuildRequest(*paths, "int8", 8)
    assert request.input == "uint8"
    line += " --input int8 --builder-level 4 --aux-streams 0 --tiling-level 2 --workspace-mib 3"
    request = parse_request(argparse.ArgumentParser(), line.split())
    assert request == BuildRequest(
        *paths,
        "int8",
        8,
        input="int8",
        builder_level=4,
        aux_streams=0,
        tiling_level=2,
        workspace_bytes=3 << 20,
    )
    assert request.limits == {
        "builder_level": 4,
        "aux_streams": 0,
        "tiling_level": 2,
        "workspace_bytes": 3 << 20,
    }


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


def test_fixed_batch(rtx, make_request, make_model):
    model = make_model(batch=3)
    with pytest.raises(UserError, match="has a fixed batch of 3: give --max-batch 3"):
        build(make_request(model=model, max_batch=4))
    build(make_request(model=model, max_batch=3))
    sidecar = read_sidecar(make_request().output)
    assert sidecar.inputs[0].shape == (3, 8, 8, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_batch": 0}, "want 1 or more"),
        ({"opt_batch": 5}, r"no more than the largest \(5 and 4 were given\)"),
        ({"precision": "fp8"}, "want fp32 or tf32 or fp16 or int8"),
        ({"flavour": "tensorrt_llm"}, "want tensorrt or tensorrt_rtx"),
        ({"compute_capabilities": ("9.0",)}, "builds for 7.5"),
        ({"compute_capabilities": ()}, "compute capability missing"),
    ],
    ids=str,
)
def test_requests_that_make_no_sense(rtx, make_request, make_model, changes, message):
    with pytest.raises(UserError, match=message):
        build_plan(make_request(**{"model": make_model("fp32")} | changes))


def test_paths_that_make_no_sense(rtx, make_request, tmp_path):
    with pytest.raises(UserError, match=r"none\.onnx: no such file"):
        build_plan(make_request(model=tmp_path / "none.onnx"))
    with pytest.raises(UserError, match=r"is a folder\. Give the path of an .onnx file"):
        build_plan(make_request(model=tmp_path))
    with pytest.raises(UserError, match=r"is a folder\. Name the file to write"):
        build_plan(make_request(output=tmp_path))


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


def test_hit_is_fast_and_imports_nothing_heavy(rtx, make_request, start_build, digits):
    """0.3 s is asked for, of which most is Python's own start; here a loaded machine may have 1."""
    request = make_request(model=digits)
    build(request)
    code = (
        "import sys; sys.argv = sys.argv[1:]\n"
        "from ck_mlperf.tensorrt.build import main; main()\n"
        "heavy = {'tensorrt_rtx', 'onnx', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    arguments = ["build", "--model", str(digits), "--output", str(request.output)]
    arguments += ["--precision", "fp32", "--max-batch", "4", "--flavour", "tensorrt_rtx"]
    paths = [path for path in sys.path if path.endswith("-helper")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    best = 9.0
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        best = min(best, time.perf_counter() - started)
        assert done.returncode == 0, done.stderr
        assert "reused because" in done.stdout
    assert best < 1.0


def test_command_lines(rtx, make_request, start_build):
    request = make_request()
    process = start_build(request)
    out, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    assert "built with TensorRT for RTX" in out
    assert "building model.plan: Building engine\n" in messages
    process = start_build(request, module="why")
    out, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    assert out.startswith(f"{request.output}: reused because all 20 parts")
    process = start_build(make_request(model=request.output))
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 2
    assert messages.startswith("error: ")
    assert "Traceback" not in messages


def test_two_builds_of_one_plan_make_one(rtx, make_request, start_build):
    request = make_request()
    processes = [start_build(request), start_build(request)]
    said = []
    for process in processes:
        out, messages = process.communicate(timeout=60)
        assert process.returncode == 0, messages
        said.append(out)
    assert sum("built with" in text for text in said) == 1
    assert sum("reused because" in text for text in said) == 1


def test_second_build_waits_and_says_so(rtx, make_request, start_build):
    request = make_request()
    request.output.parent.mkdir()
    with (request.output.parent / "model.plan.lock").open("w") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start_build(request)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "waiting for the process that builds it already (pid 4711)" in line
        time.sleep(0.2)
        assert process.poll() is None
        build_in_place(request)  # what the other process does
    out, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    assert "reused because" in out
    assert "built with" not in out


def build_in_place(request):
    """Build without taking the lock."""
    other = dataclasses.replace(request, output=request.output.parent.parent / "o" / "model.plan")
    build_plan(other, lambda line: None)
    for path in (other.output, sidecar_path(other.output)):
        shutil.copy(path, request.output.parent / path.name)


def start_slow_build(start_build, fake_tensorrt, set_gpus, make_request, version):
    """A build with a stand-in that takes 30 s, and has begun."""
    set_gpus(("NVIDIA A100", "8.0"))
    request = make_request(flavour="tensorrt")
    process = start_build(request, path=fake_tensorrt(version), FAKE_STEPS="3000")
    # 8.6 cannot report, and says so
    stream, wanted = (process.stdout, "Ctrl-C") if version == "8.6.1" else (process.stderr, "Build")
    for line in stream:
        if wanted in line:
            return request, process
    raise AssertionError(process.communicate())


@pytest.mark.parametrize("version", ["8.6.1", "10.13.0.35"])
def test_ctrl_c_ends_the_build(start_build, fake_tensorrt, set_gpus, make_request, version):
    request, process = start_slow_build(start_build, fake_tensorrt, set_gpus, make_request, version)
    time.sleep(0.2)
    started = time.perf_counter()
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=20)
    assert time.perf_counter() - started < 3
    assert process.returncode == 130
    assert "interrupted" in messages
    assert "Traceback" not in messages
    assert list_files(request) == ["model.plan.lock"]


@pytest.fixture(scope="module")
def large_model(tmp_path_factory):
    """Takes TensorRT for RTX about a second: 100 MB of weights."""
    count, width = 24, 1024
    random = np.random.default_rng(1)
    nodes = [helper.make_node("Flatten", ["image"], ["x0"])]
    weights = {"first": random.standard_normal((192, width), np.float32)}
    nodes.append(helper.make_node("MatMul", ["x0", "first"], ["x1"]))
    for number in range(1, count + 1):
        weights[f"w{number}"] = random.standard_normal((width, width), np.float32)
        nodes.append(helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"x{number + 1}"]))
    weights["last"] = random.standard_normal((width, 10), np.float32)
    nodes.append(helper.make_node("MatMul", [f"x{count + 1}", "last"], ["scores"]))
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path = tmp_path_factory.mktemp("large") / "large.onnx"
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    image = {"side": 8, "crop": 1.0, "interpolation": "area", "channels": "rgb"}
    recipe = {"dataset": "digits", "image": image, "mean": [0, 0, 0], "scale": [1, 1, 1]}
    path.with_suffix(".json").write_text(json.dumps(recipe))
    yield path
    path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_real_build_that_is_ended(rtx, make_request, start_build, large_model, number):
    """Nothing stays that would be used, and the next build is a whole one."""
    request = make_request(model=large_model)
    process = start_build(request)
    assert process.stderr is not None
    for line in process.stderr:
        if "Building engine from subgraph" in line:
            break
    process.send_signal(number)
    _, messages = process.communicate(timeout=20)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), messages
    assert "Traceback" not in messages
    assert list_files(request) == ["model.plan.lock"]
    assert "there is no plan at" in explain(request)


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
    """The old plan and its sidecar still fit; the new one is not there by half."""
    import ck_mlperf.tensorrt.plan

    build(make_request())
    old = make_request().output.read_bytes()

    def fail(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(ck_mlperf.tensorrt.plan, "write_file", fail)
    with pytest.raises(OSError, match="No space left"):
        build(make_request(max_batch=8))
    monkeypatch.undo()
    assert make_request().output.read_bytes() == old
    assert read_plan(make_request().output, Target("tensorrt_rtx", rtx, None)) == old
