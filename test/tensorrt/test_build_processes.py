"""Builds as processes: two of one plan, and builds that are ended before they are done."""

import dataclasses
import fcntl
import json
import shutil
import signal
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ck_mlperf.tensorrt.build import build_plan
from ck_mlperf.tensorrt.lookup import look_up
from ck_mlperf.tensorrt.plan_file import sidecar_path

from .conftest import list_files


def test_command_lines(rtx, make_request, start_build):
    request = make_request()
    process = start_build(request)
    out, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    assert "built with TensorRT for RTX" in out
    assert "building model.plan: Building engine\n" in messages
    process = start_build(request)
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
        assert "waiting for the process that is building it (pid 4711)" in line
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
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=20)
    assert process.returncode == 130
    # 8.6 cannot be stopped: the process ends in the middle of it.
    assert ("the stand-in has stopped" in messages) == (version != "8.6.1")
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
    """Nothing that would be used stays, and the next build starts anew."""
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
    assert "there is no plan at" in look_up(request).explain()
