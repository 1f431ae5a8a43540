"""TensorRT as it is: right in every slot, precision, scenario and size; and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.images.preprocessed import load_preprocessed
from ck_mlperf.loadgen.engines import EngineError, make_engine
from ck_mlperf.loadgen.engines.cuda import Gpu
from ck_mlperf.loadgen.engines.prepare import Preparing, pack, shape_sample
from ck_mlperf.models.recipe import load_model_recipe
from ck_mlperf.tensorrt.plan_file import PlanError, sidecar_path

PRECISIONS = ("fp32", "tf32", "fp16", "int8")
# Of the answers of ONNX Runtime on the CPU with the network as it was exported.
LEAST_EQUAL = {"fp32": 1.0, "tf32": 0.998, "fp16": 0.998, "int8": 0.98}


def classify(engine, batches: list[list[int]]) -> list[int]:
    """The engine's labels of batches of rows, as many under way as it takes."""
    labels: list[int] = []
    under_way = 0
    for rows in batches:
        if under_way == engine.depth:
            labels += engine.collect().tolist()
            under_way -= 1
        engine.enqueue(rows)
        under_way += 1
    for _ in range(under_way):
        labels += engine.collect().tolist()
    return labels


@pytest.fixture(scope="module")
def expected(network: Path, digits: Path) -> np.ndarray:
    """What ONNX Runtime answers on the CPU: int [500]."""
    images = load_preprocessed(digits).images
    with make_engine("onnx", network) as engine:
        engine.load(images)
        engine.enqueue(range(len(images)))
        return engine.collect()[:, 0]


@pytest.mark.parametrize("form", ["uint8", "native"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_right_in_every_slot(
    plans: Callable[..., Path], digits: Path, expected: np.ndarray, precision: str, form: str
) -> None:
    native = {"int8": "int8", "fp16": "fp16"}.get(precision, "fp32")
    plan = plans(precision, input="uint8" if form == "uint8" else native)
    images = load_preprocessed(digits).images
    rng = np.random.default_rng(0)
    sizes = [32, 32, 32, 31, 17, 1, 32, 7, 3, 2, 32, 1, 1, 1, 25, 32]
    batches = [rng.integers(0, len(images), size).tolist() for size in sizes]
    with make_engine("tensorrt", plan) as engine:
        assert isinstance(engine._kernel, Preparing) == (form == "uint8")
        for prepared in ([1, 2, 4, 8, 16, 32], [32]):  # a batch is filled up to the next of these
            engine.prepare(prepared)
            engine.load(images)
            labels = classify(engine, batches)
            engine.unload()
            equal = np.equal(labels, expected[np.concatenate(batches)]).mean()
            assert equal >= LEAST_EQUAL[precision]


def test_the_kernel_makes_what_is_made_on_the_host(
    plans: Callable[..., Path], digits: Path
) -> None:
    images = np.random.default_rng(1).integers(0, 256, (40, 28, 28, 3), np.uint8)
    for precision in PRECISIONS:
        with make_engine("tensorrt", plans(precision)) as engine:
            engine.prepare([32])
            engine.load(images)
            rows = [39, 0, 7, 7, 12, *range(1, 28)]
            engine.enqueue(rows)
            slot = engine._in_flight[0]
            engine.collect()
            recipe = engine._recipe
            host = type(engine).__mro__[1]._prepare_samples(engine, images[rows])
            wanted = pack(host, engine._layout)
            found = np.empty((32, *shape_sample(recipe, engine._layout)), wanted.dtype)
            with engine._gpu as gpu:
                gpu.cuda.memcpy_dtoh(found, engine._lanes[slot.compute_stream.handle].input)
            assert (found == wanted).all()


@pytest.mark.parametrize(
    ("scenario", "variables"),
    [
        ("SingleStream", {"CK_LOADGEN_COUNT_OVERRIDE": "500"}),
        ("MultiStream", {"CK_LOADGEN_COUNT_OVERRIDE": "700", "CK_LOADGEN_MULTISTREAMNESS": "8",
                         "CK_BATCH_SIZE": "8"}),
        ("Server", {"CK_LOADGEN_DURATION": "2", "CK_LOADGEN_TARGET_QPS": "2000",
                    "CK_BATCH_SIZE": "32", "CK_LOADGEN_COUNT_OVERRIDE": "4000"}),
        ("Offline", {"CK_LOADGEN_COUNT_OVERRIDE": "50000", "CK_BATCH_SIZE": "32"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_scenario_ends_valid(
    plans: Callable[..., Path],
    run_test: Callable[..., dict],
    precision: str,
    scenario: str,
    variables: dict[str, str],
) -> None:
    run = run_test(
        plans(precision),
        CK_LOADGEN_SCENARIO=scenario,
        CK_LOADGEN_MODE="PerformanceOnly",
        **variables,
    )
    assert run["verdict"] == "VALID"
    assert run["devices"][0] > 0


@pytest.mark.parametrize("batch", [1, 7, 32])
def test_accuracy_of_a_whole_run(
    plans: Callable[..., Path], run_test: Callable[..., dict], expected: np.ndarray, batch: int
) -> None:
    run = run_test(
        plans("int8"),
        CK_LOADGEN_SCENARIO="Offline",
        CK_LOADGEN_MODE="AccuracyOnly",
        CK_BATCH_SIZE=str(batch),
    )
    answers = [run["answers"][str(index)] for index in range(len(expected))]
    assert np.equal(answers, expected).mean() >= LEAST_EQUAL["int8"]


def test_two_processes_on_one_gpu(
    plans: Callable[..., Path], run_once: Callable[..., subprocess.Popen[str]]
) -> None:
    variables = {
        "CK_LOADGEN_SCENARIO": "Offline",
        "CK_LOADGEN_MODE": "AccuracyOnly",
        "CK_BATCH_SIZE": "32",
    }
    processes = [run_once(plans("fp16"), **variables) for _ in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr


def test_a_plan_of_another_gpu_is_refused(plans: Callable[..., Path], tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(plans("fp32").read_bytes())
    sidecar = json.loads(sidecar_path(plans("fp32")).read_text())
    sidecar["key"]["gpu"]["name"] = "NVIDIA A100-SXM4-80GB"
    sidecar_path(plan).write_text(json.dumps(sidecar))
    with pytest.raises(PlanError, match="the plan was built on NVIDIA A100"):
        make_engine("tensorrt", plan).open()


def test_a_damaged_plan_is_never_deserialised(plans: Callable[..., Path], tmp_path: Path) -> None:
    content = bytearray(plans("fp32").read_bytes())
    content[len(content) // 2] ^= 1
    plan = tmp_path / "model.plan"
    plan.write_bytes(content)
    sidecar_path(plan).write_bytes(sidecar_path(plans("fp32")).read_bytes())
    with pytest.raises(PlanError, match="damaged or was replaced"):
        make_engine("tensorrt", plan).open()


def test_a_batch_beyond_the_plan_is_refused(plans: Callable[..., Path], digits: Path) -> None:
    engine = make_engine("tensorrt", plans("fp16"))
    with engine, pytest.raises(UserError, match="refuses shape"):
        engine.prepare([64])


def test_a_full_gpu_is_an_error_that_says_so(plans: Callable[..., Path]) -> None:
    large = plans("fp32", 4096)
    gpu = Gpu(0)
    held = []
    try:
        with gpu:
            for size in (1 << 30, 1 << 20):
                while gpu.cuda.mem_get_info()[0] > size + (24 << 20):
                    held.append(gpu.cuda.mem_alloc(size))
        engine = make_engine("tensorrt", large)
        with pytest.raises(UserError, match="memory"), engine:
            engine.prepare([4096])
    finally:
        with gpu:
            for allocation in held:
                allocation.free()
        gpu.close()


def test_a_batch_that_cannot_start_ends_the_run(
    plans: Callable[..., Path], digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load_preprocessed(digits).images
    with make_engine("tensorrt", plans("fp16")) as engine:
        engine.prepare([32])
        engine.load(images)
        engine._graphs.clear()  # as with a library that captures none
        stream = engine._free_slots[0].compute_stream
        engine._lanes[stream.handle].context.set_address("class", 0)
        with pytest.raises(EngineError, match=r"batch 1 of .* failed"):
            engine.enqueue(list(range(32)))


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_ended_leaves_no_plan(
    converted: Callable[[str], Path], tmp_path: Path, way: signal.Signals
) -> None:
    plan = tmp_path / "model.plan"
    command = [sys.executable, "-m", "ck_mlperf.tensorrt.build", "--flavour", "tensorrt"]
    command += ["--model", converted("int8"), "--output", plan, "--precision", "int8"]
    command += ["--max-batch", "32", "--builder-level", "0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "not reused: there is no plan" in process.stdout.readline()  # now it begins
    process.send_signal(way)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == (130 if way == signal.SIGINT else -way)
    assert "Traceback" not in stderr
    assert not plan.exists()
    subprocess.run(command, env=environment, check=True)
    assert plan.exists()


@pytest.mark.parametrize("scenario", ["Offline", "Server", "SingleStream"])
def test_ctrl_c_ends_a_run(
    plans: Callable[..., Path], run_once: Callable[..., subprocess.Popen[str]], scenario: str
) -> None:
    variables = {
        # Offline has to last longer than its answers take: 20 million of them.
        "Offline": {"CK_LOADGEN_DURATION": "20", "CK_LOADGEN_TARGET_QPS": "1000000"},
        "Server": {"CK_LOADGEN_DURATION": "60", "CK_LOADGEN_TARGET_QPS": "1000"},
        "SingleStream": {"CK_LOADGEN_DURATION": "60"},
    }[scenario]
    process = run_once(
        plans("fp16"),
        CK_LOADGEN_SCENARIO=scenario,
        CK_LOADGEN_MODE="PerformanceOnly",
        CK_BATCH_SIZE="32" if scenario != "SingleStream" else "1",
        **variables,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert time.monotonic() - started < 20


def test_real_images_keep_their_accuracy(
    shared_data: Path, repository: Path, tmp_path: Path, flavour: str
) -> None:
    """Each precision of ResNet-50 within one point of ONNX Runtime's 83.8% on 500 images."""
    from ck_mlperf.images.preprocess import preprocess
    from ck_mlperf.models.convert import convert
    from ck_mlperf.tensorrt.build import build_plan
    from ck_mlperf.tensorrt.request import BuildRequest

    source = tmp_path / "resnet50_v1.5_pqf_large.onnx"
    models = shared_data / "models"
    subprocess.run(
        [sys.executable, models / "build_resnet.py", "pqf", "resnet50",
         models / "pqf_resnet50_large.npz", source],
        check=True,
    )  # fmt: skip
    recipe_path = source.with_suffix(".json")
    recipe_path.write_bytes((repository / "test/data/recipes" / recipe_path.name).read_bytes())
    recipe = load_model_recipe(source)
    found = preprocess(shared_data / "imagenet-500", tmp_path / "val", recipe.image)
    preprocess(shared_data / "calibration-150", tmp_path / "cal", recipe.image, labelled=False)
    for precision in ("fp16", "int8"):
        model = tmp_path / f"{precision}.onnx"
        folder = tmp_path / "cal" if precision == "int8" else None
        convert(source, model, precision, "native", calibration=folder)
        plan = tmp_path / f"{precision}.plan"
        build_plan(BuildRequest(model, plan, precision, 32, flavour=flavour))
        with make_engine("tensorrt", plan) as engine:
            engine.prepare([32])
            engine.load(found.images)
            rows = [list(range(at, min(at + 32, 500))) for at in range(0, 500, 32)]
            top1 = np.equal(classify(engine, rows), found.labels).mean()
        assert top1 == pytest.approx(0.838, abs=0.01)
