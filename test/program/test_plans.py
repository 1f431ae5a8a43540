"""Runs of plans and on GPUs, as far as a machine without a GPU can tell."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

PROGRAM = "program:image-classification-tensorrt-loadgen-py"

WITH_RTX = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="NOT RUN: needs TensorRT for RTX (pip install tensorrt-rtx-cu13)",
)
WITHOUT_GPU = pytest.mark.skipif(
    shutil.which("nvidia-smi") is not None, reason="NOT RUN: is about machines without a GPU"
)


def assert_wants_a_gpu(ck, process) -> None:
    """One message that says what is missing, and nothing that looks like a result."""
    assert "GPU" in process.stderr
    assert process.stderr.count("error:") == 1
    assert "Traceback" not in process.stdout + process.stderr
    assert not (ck.tmp / "record.json").exists()
    assert not list(ck.tmp.glob("mlperf_log_*"))


@WITH_RTX
@WITHOUT_GPU
def test_a_plan_without_a_gpu_with_the_flags_of_2019(ck):
    """Word for word, but for the network; converted, and then said what is missing."""
    conf = ck.root / "program" / "image-classification-tensorrt-loadgen-py" / "user.conf"
    failed = ck(
        "run", PROGRAM, "--skip_print_timers", "--env.CK_SILENT_MODE",
        "--env.CK_LOADGEN_MODE=AccuracyOnly", "--env.CK_LOADGEN_SCENARIO=MultiStream",
        "--env.CK_LOADGEN_MULTISTREAMNESS=32", "--env.CK_BATCH_SIZE=32",
        "--env.CK_LOADGEN_DATASET_SIZE=500", "--env.CK_LOADGEN_BUFFER_SIZE=500",
        f"--env.CK_LOADGEN_CONF_FILE={conf}",
        "--dep_add_tags.weights=model,tensorrt,digits,converted-from-onnx,fp32,maxbatch.32",
        code=2,
    )  # fmt: skip
    assert_wants_a_gpu(ck, failed)
    (plan,) = ck.tools.glob("*-digits-*-fp32-*maxbatch.32-*/model.plan")
    assert str(plan) in failed.stderr


@WITH_RTX
@WITHOUT_GPU
def test_a_benchmark_of_a_plan_without_a_gpu_records_nothing(ck):
    failed = ck("benchmark", PROGRAM, "--repetitions=1", "--record", "--record_repo=local",
                "--record_uoa=plan-without-gpu", "--skip_stat_analysis", "--sleep=0",
                "--dep_add_tags.weights=model,tensorrt,digits,maxbatch.32", code=2)  # fmt: skip
    assert_wants_a_gpu(ck, failed)
    assert not (ck.experiments / "plan-without-gpu").exists()


@WITHOUT_GPU
def test_onnx_runtime_on_the_gpu_without_a_gpu(ck):
    """The tag is no property of the model: the entry is found without it."""
    failed = ck("run", PROGRAM, "--dep_add_tags.weights=model,onnx,digits,device.cuda", code=2)
    assert_wants_a_gpu(ck, failed)
    assert "device.cuda" in failed.stderr


@pytest.fixture
def with_gpu(tmp_path):
    """An environment in which nvidia-smi names a GPU, and pip has what drives one: by name only."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script = programs / "nvidia-smi"
    asked = tmp_path / "asked"
    said = "0, GPU-1234, NVIDIA GeForce RTX 4090, 8.9"
    script.write_text(f"#!/bin/sh\necho asked >> {asked}\necho '{said}'\n")
    script.chmod(0o755)
    for name, version in [
        ("pycuda", "2026.1"),
        ("cuda_bindings", "13.0.0"),
        ("onnxruntime_gpu", "1.99.0"),
    ]:
        info = f"{name}-{version}.dist-info"
        files = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": "",
        }
        with zipfile.ZipFile(tmp_path / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            for path, text in files.items():
                wheel.writestr(path, text)
    return {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path),
    }


@pytest.fixture
def handed_over(ck):
    """Runs the program as far as the job file, and returns what is in it."""
    program = ck.tmp.parent / "run.py"
    original = program.read_text()
    program.write_text(
        "import shutil\nshutil.copy('job.json', '../seen.json')\nraise SystemExit(9)\n"
    )

    def run(*flags: str, **environment: str) -> tuple[dict, str]:
        printed = ck("run", PROGRAM, *flags, code=9, **environment).stdout
        job = json.loads((program.parent / "seen.json").read_text())
        assert job.pop("run_id")
        assert job.pop("ck")["pid"]
        return job, printed

    yield run
    program.write_text(original)
    for library in ("pycuda", "cuda-bindings", "onnxruntime-gpu"):
        ck("rm", "env:*", f"--tags=lib,python-package,{library}", "--force", code=None)
    ck("rm", "env:*", "--tags=model,tensorrt", "--force", code=None)


@pytest.mark.slow
@WITHOUT_GPU
def test_onnx_runtime_on_the_gpu_gets_its_libraries(handed_over, with_gpu):
    flag = "--dep_add_tags.weights=model,onnx,digits,device.cuda"
    job, _ = handed_over(flag, **with_gpu)
    assert job["engine"] == "onnx-cuda"
    assert job["model"].endswith("digits.onnx")
    versions = {dep["key"]: dep["version"] for dep in job["deps"]}
    assert versions["engine"] == "1.99.0"
    assert versions["pycuda"] == "2026.1"
    assert versions["cuda-bindings"] == "13.0.0"


@pytest.mark.slow
@pytest.mark.long
@WITH_RTX
@WITHOUT_GPU
def test_a_plan_on_a_gpu_is_built_for_it(ck, handed_over, with_gpu):
    weights = "model,tensorrt,digits,converted-from-onnx,fp32"
    # Without a GPU it is built for all that TensorRT for RTX runs on.
    ck("install", "package", f"--tags={weights},maxbatch.5", "--quiet")
    load = ["--env.CK_LOADGEN_SCENARIO=Offline", "--env.CK_BATCH_SIZE=5"]
    flags = [f"--dep_add_tags.weights={weights}", *load]
    job, printed = handed_over(*flags, **with_gpu)
    assert "building again: " in printed
    assert "gpu.compute_capabilities is [8.9]" in printed
    sidecar_path = Path(job["model"]).with_name("model.plan.json")
    sidecar = json.loads(sidecar_path.read_text())
    assert sidecar["key"]["gpu"] == {"compute_capabilities": ["8.9"]}
    assert job["engine"] == "tensorrt"
    assert job["sha256"] == sidecar["plan"]["sha256"]
    assert job["recipe"] == sidecar["recipe"]
    assert job["recipe"]["max_batch"] == 5  # where no tag says it, the batch that is asked for
    deps = {dep["key"]: dep for dep in job["deps"]}
    assert {"weights", "pycuda", "cuda-bindings", "ck-mlperf"} <= set(deps)
    assert "tensorrt-rtx" in deps["engine"]["tags"]

    # The second time it is there, also by its UID; and it is not taken where it is stale.
    asked = Path(with_gpu["PIP_FIND_LINKS"]) / "asked"
    asked.unlink()
    again, printed = handed_over(*flags, **with_gpu)
    assert again == job
    assert asked.read_text().split() == ["asked"]  # each time may take a second
    assert "building again: " not in printed
    by_uid = f"--deps.weights={deps['weights']['uoa']}"
    assert handed_over(by_uid, *load, **with_gpu)[0] == job
    # Built again by hand, in the same place: registered again.
    sidecar["plan"]["sha256"] = "0" * 64
    sidecar_path.write_text(json.dumps(sidecar))
    again, printed = handed_over(*flags, **with_gpu)
    assert "another plan is there than was registered with CK" in printed
    sidecar = json.loads(sidecar_path.read_text())
    assert again["sha256"] == sidecar["plan"]["sha256"]
    job, _ = handed_over(*flags, **with_gpu)
    by_uid = f"--deps.weights={next(d['uoa'] for d in job['deps'] if d['key'] == 'weights')}"
    sidecar["key"]["version"] = "1.0.0.1"
    sidecar_path.write_text(json.dumps(sidecar))
    failed = ck("run", PROGRAM, by_uid, code=2, **with_gpu)
    assert "would be built otherwise now: version is" in failed.stderr


@WITH_RTX
@WITHOUT_GPU
def test_a_gpu_that_tensorrt_for_rtx_does_not_take(ck, with_gpu):
    script = Path(with_gpu["PATH"].partition(":")[0]) / "nvidia-smi"
    script.write_text("#!/bin/sh\necho '0, GPU-1234, NVIDIA H200, 9.0'\n")
    failed = ck("run", PROGRAM, "--dep_add_tags.weights=model,tensorrt,digits", code=2, **with_gpu)
    assert "does not run on NVIDIA H200 (9.0)" in failed.stderr
    assert "lib,python-package,tensorrt" in failed.stderr
    assert failed.stderr.count("error:") == 1


def test_a_plan_of_which_there_is_no_model(ck):
    failed = ck("run", PROGRAM, "--dep_add_tags.weights=model,tensorrt,vgg,fp32", code=2)
    assert "vgg" in failed.stderr
    assert "ck detect soft:model.onnx --full_path=FILE" in failed.stderr
    assert failed.stderr.count("error:") == 1
