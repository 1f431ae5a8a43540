"""The check of `ck doctor loadgen --gpu`, up to what needs a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen import checkup
from ck_mlperf.loadgen.checkup_steps import (
    IMAGES,
    Answers,
    Case,
    Steps,
    classify,
    compare_answers,
    time_engine,
)
from ck_mlperf.loadgen.engines import make_engine
from ck_mlperf.machine.gpus import NoGpuError


@pytest.fixture
def digits(repository: Path) -> Path:
    return repository / "package" / "model-onnx-digits" / "digits.onnx"


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 28, 28, 3), np.uint8)


class FakeBuilder:
    """Builds nothing, and fails for fp16."""

    def __init__(self) -> None:
        self.libraries: set[str] = set()
        self.builds: list[dict[str, str]] = []

    def __enter__(self) -> FakeBuilder:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def build(self, *options: str) -> None:
        self.builds.append(dict(zip(options[::2], options[1::2], strict=True)))
        if self.builds[-1]["--precision"] == "fp16":
            raise UserError("TensorRT cannot take this")


@dataclass
class FakeSteps(Steps):
    """All steps work, but for fp16's build, until a test makes one fail."""

    gpu_error: Exception | None = None
    copy_error: Exception | None = None
    converted: list[str] = field(default_factory=list)

    def describe_gpu(self) -> str:
        if self.gpu_error:
            raise self.gpu_error
        return "NVIDIA X"

    def measure_copies(self) -> str:
        if self.copy_error:
            raise self.copy_error
        return "50 GB/s"

    def convert(self, case: Case) -> str:
        self.converted.append(case.precision)
        return "1.0 s"

    def run_plan(self, case: Case) -> str:
        return "100% agree"


def make_steps(
    digits: Path, flavour: str | None = None, calibration: Path | None = Path("images")
) -> FakeSteps:
    return FakeSteps(digits, flavour, 0, calibration, Path("kept"), FakeBuilder())


def test_every_step_is_reported_and_the_rest_goes_on(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = make_steps(digits)
    steps.gpu_error = RuntimeError("cuInit | broke\nbadly")
    assert not checkup.examine(steps)
    report = capsys.readouterr().out
    assert "| GPU and driver | FAILED | RuntimeError: cuInit \\| broke<br>badly |" in report
    assert "| copies into the device | ok | 50 GB/s |" in report
    assert "| run the plan, fp32 | ok | 100% agree |" in report
    assert "| build the plan, fp16 | FAILED | TensorRT cannot take this |" in report
    assert "run the plan, fp16" not in report
    assert "| run the plan, int8 | ok | 100% agree |" in report
    assert "FAILED: GPU and driver, build the plan, fp16." in report
    assert {build["--timings"] for build in steps.builder.builds} == {"kept"}


def test_a_driver_that_is_missing_is_said_once(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = make_steps(digits, "tensorrt")
    steps.gpu_error = NoGpuError("no NVIDIA driver is installed: libcuda.so.1")
    steps.copy_error = steps.gpu_error
    assert not checkup.examine(steps)
    report = capsys.readouterr().out
    assert report.count("no NVIDIA driver is installed") == 1
    assert report.count("| not done | needs a GPU |") == 4
    assert "FAILED: GPU and driver. Please" in report
    assert steps.converted == ["fp32", "fp16", "int8"]
    assert steps.builder.builds == []
    # TensorRT for RTX builds without one.
    steps = make_steps(digits, "tensorrt_rtx")
    steps.gpu_error = NoGpuError("no NVIDIA driver is installed: libcuda.so.1")
    assert not checkup.examine(steps)
    report = capsys.readouterr().out
    assert "| build the plan, int8 | ok | " in report
    assert "| run the plan, int8 | not done | needs a GPU |" in report


def test_int8_without_images(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkup.examine(make_steps(digits, calibration=None))
    report = capsys.readouterr().out
    assert "| convert the ONNX file, int8 | not done | no images to calibrate with" in report
    assert "the plan, int8" not in report


def test_the_report_has_the_libraries(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkup, "list_libraries", lambda: ["libcuda.so.580.65 (13.0)"])
    monkeypatch.setattr(checkup, "find_cuda_version", lambda: (13, 0))
    steps = make_steps(digits)
    steps.builder.libraries.add("libnvinfer.so.10")
    checkup.examine(steps)
    report = capsys.readouterr().out
    assert "- CUDA of the driver: 13.0\n" in report
    assert "- NVIDIA's libraries in use: libcuda.so.580.65 (13.0), libnvinfer.so.10\n" in report


@pytest.mark.parametrize(
    ("flavour", "told"),
    [
        (None, {}),
        ("tensorrt_rtx", {"--flavour": "tensorrt_rtx"}),
        ("tensorrt", {"--flavour": "tensorrt", "--builder-level": "0"}),
    ],
)
def test_what_a_build_is_told(
    digits: Path, tmp_path: Path, flavour: str | None, told: dict[str, str]
) -> None:
    case = Case("fp32", tmp_path / "fp32")
    steps = Steps(digits, flavour, 0, builder=FakeBuilder())
    assert steps.build(case).endswith(" s")
    assert steps.builder.builds == [
        {
            "--model": str(case.converted),
            "--output": str(case.plan),
            "--precision": "fp32",
            "--max-batch": "64",
            "--timings": str(tmp_path),
            **told,
        }
    ]


def test_a_conversion_that_fails_says_why(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "missing.onnx", None, 0, builder=FakeBuilder())
    with pytest.raises(UserError, match=r"missing\.onnx"):
        steps.convert(Case("fp32", tmp_path))


def test_a_plan_that_answers_otherwise_is_found(digits: Path, images: np.ndarray) -> None:
    with make_engine("onnx", digits) as engine:
        labels = classify(engine, images)
        same = compare_answers(engine, images, Answers("ONNX Runtime 1", labels), 0.99)
        assert "100.0% of 512 answers agree with ONNX Runtime 1" in same
        shifted = Answers("ONNX Runtime 1", (labels + 1) % 10)
        with pytest.raises(UserError, match=r"^0\.0% of the answers .* want 99%"):
            compare_answers(engine, images, shifted, 0.99)


def test_all_images_are_classified_once(digits: Path, images: np.ndarray) -> None:
    with make_engine("onnx", digits) as engine:
        labels = classify(engine, images)
        engine.load(images)
        engine.enqueue(range(len(images)))
        assert labels.tolist() == engine.collect()[:, 0].tolist()
        latency_us, rate = time_engine(engine, seconds=0.01)
        assert latency_us > 0
        assert rate > 0
