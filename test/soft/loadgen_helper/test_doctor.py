"""`loadgen_helper.doctor`, up to what needs a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from imagenet_helper.errors import UserError
from loadgen_helper import doctor
from loadgen_helper.engines import make_engine


@pytest.fixture
def digits(repository: Path) -> Path:
    return repository / "package" / "model-onnx-digits" / "digits.onnx"


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (doctor.IMAGES, 28, 28, 3), np.uint8)


def test_every_step_is_reported_and_the_rest_goes_on(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(device: int) -> str:
        raise RuntimeError("cuInit | broke\nbadly")

    started = []

    def run_step(module: str, *arguments: str) -> str:
        started.append((module, arguments[arguments.index("--precision") + 1]))
        if started[-1] == ("tensorrt_helper.build", "fp16"):
            raise UserError("TensorRT cannot take this")
        return "1.0 s"

    monkeypatch.setattr(doctor, "describe_gpu", fail)
    monkeypatch.setattr(doctor, "measure_copies", lambda device: "50 GB/s")
    monkeypatch.setattr(doctor, "run_step", run_step)
    monkeypatch.setattr(doctor, "compare_engines", lambda *_: "100% agree")
    assert not doctor.examine(digits, None, 0)
    report = capsys.readouterr().out
    assert "| GPU and driver | FAILED | RuntimeError: cuInit \\| broke<br>badly |" in report
    assert "| copies into the device | ok | 50 GB/s |" in report
    assert "| run the plan, fp32 | ok | 100% agree |" in report
    assert "| build the plan, fp16 | FAILED | TensorRT cannot take this |" in report
    assert "run the plan, fp16" not in report
    assert "FAILED: GPU and driver, build the plan, fp16." in report


def test_a_step_that_fails_says_what_the_module_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.onnx"):
        doctor.run_step("imagenet_helper.model", str(tmp_path / "missing.onnx"))


def test_a_plan_that_answers_otherwise_is_found(
    digits: Path, monkeypatch: pytest.MonkeyPatch, images: np.ndarray
) -> None:
    shift = 0

    def make(kind: str, path: Path, device: int = 0):
        engine = make_engine("onnx", path)
        if kind == "tensorrt":
            collect = engine.collect

            def collect_shifted():
                labels = collect()
                labels[:, 0] = (labels[:, 0] + shift) % 10
                return labels

            monkeypatch.setattr(engine, "collect", collect_shifted)
        return engine

    monkeypatch.setattr(doctor, "make_engine", make)
    monkeypatch.setattr(doctor, "_SECONDS", 0.01)
    assert "100.0% of 512 answers agree" in doctor.compare_engines(digits, digits, 0, 0.99)
    shift = 1
    with pytest.raises(UserError, match=r"^0\.0% of the answers"):
        doctor.compare_engines(digits, digits, 0, 0.99)


def test_all_images_are_classified_once(digits: Path, images: np.ndarray) -> None:
    with make_engine("onnx", digits) as engine:
        labels = doctor.classify(engine, images)
        engine.load(images)
        engine.enqueue(range(len(images)))
        assert labels.tolist() == engine.collect()[:, 0].tolist()
