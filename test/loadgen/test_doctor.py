"""`ck_mlperf.loadgen.doctor`, up to what needs a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen import doctor
from ck_mlperf.loadgen.engines import make_engine
from ck_mlperf.machine.environment import NoGpuError


@pytest.fixture
def digits(repository: Path) -> Path:
    return repository / "package" / "model-onnx-digits" / "digits.onnx"


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (doctor.IMAGES, 28, 28, 3), np.uint8)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(what, precision) of the steps that are done from now on; building fp16 fails."""
    done = []

    def run_step(module: str, *arguments: str) -> str:
        done.append((module, arguments[arguments.index("--precision") + 1]))
        return "1.0 s"

    def build(self: object, *options: str) -> str:
        done.append(("build", options[options.index("--precision") + 1]))
        done.append(("timings", options[options.index("--timings") + 1]))
        if ("build", "fp16") in done[-2:]:
            raise UserError("TensorRT cannot take this")
        return "2.0 s"

    monkeypatch.setattr(doctor, "describe_gpu", lambda device: "NVIDIA X")
    monkeypatch.setattr(doctor, "measure_copies", lambda device: "50 GB/s")
    monkeypatch.setattr(doctor, "run_step", run_step)
    monkeypatch.setattr(doctor.Builder, "build", build)
    monkeypatch.setattr(doctor, "compare_engines", lambda *given: f"100% agree, {given[4]}")
    return done


def test_every_step_is_reported_and_the_rest_goes_on(
    digits: Path,
    steps: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(device: int) -> str:
        raise RuntimeError("cuInit | broke\nbadly")

    monkeypatch.setattr(doctor, "describe_gpu", fail)
    assert not doctor.examine(digits, None, 0, Path("images"), Path("kept"))
    report = capsys.readouterr().out
    assert "| GPU and driver | FAILED | RuntimeError: cuInit \\| broke<br>badly |" in report
    assert "| copies into the device | ok | 50 GB/s |" in report
    assert "| run the plan, fp32 | ok | 100% agree, None |" in report
    assert "| build the plan, fp16 | FAILED | TensorRT cannot take this |" in report
    assert "run the plan, fp16" not in report
    assert "| run the plan, int8 | ok | 100% agree, images |" in report
    assert "FAILED: GPU and driver, build the plan, fp16." in report
    assert {where for what, where in steps if what == "timings"} == {"kept"}


def test_a_driver_that_is_missing_is_said_once(
    digits: Path,
    steps: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(device: int) -> str:
        raise NoGpuError("no NVIDIA driver is installed: libcuda.so.1")

    monkeypatch.setattr(doctor, "describe_gpu", fail)
    monkeypatch.setattr(doctor, "measure_copies", fail)
    assert not doctor.examine(digits, "tensorrt", 0, Path("images"))
    report = capsys.readouterr().out
    assert report.count("no NVIDIA driver is installed") == 1
    assert report.count("| not done | needs a GPU |") == 4
    assert "FAILED: GPU and driver. Please" in report
    assert [what for what, _ in steps] == ["ck_mlperf.models.convert"] * 3
    # TensorRT for RTX builds without one.
    assert not doctor.examine(digits, "tensorrt_rtx", 0, Path("images"))
    report = capsys.readouterr().out
    assert "| build the plan, int8 | ok | 2.0 s |" in report
    assert "| run the plan, int8 | not done | needs a GPU |" in report


def test_int8_without_images(
    digits: Path, steps: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    doctor.examine(digits, None, 0)
    report = capsys.readouterr().out
    assert "| convert the ONNX file, int8 | not done | no images to calibrate with" in report
    assert "the plan, int8" not in report


def test_the_report_has_the_libraries(
    digits: Path,
    steps: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(doctor, "list_libraries", lambda: ["libcuda.so.580.65 (13.0)"])
    monkeypatch.setattr(doctor, "find_cuda_version", lambda: (13, 0))
    doctor.examine(digits, None, 0)
    report = capsys.readouterr().out
    assert "- CUDA of the driver: 13.0\n" in report
    assert "- NVIDIA's libraries in use: libcuda.so.580.65 (13.0)\n" in report


def test_builds_of_one_process(rtx: str, digits: Path, tmp_path: Path) -> None:
    builder = doctor.Builder()

    def build(name: str, model: Path = digits) -> str:
        return builder.build(
            *("--model", str(model), "--output", str(tmp_path / name), "--precision", "fp32"),
            *("--max-batch", "2", "--flavour", "tensorrt_rtx"),
        )

    try:
        assert build("one.plan").endswith(" s")
        process = builder._process
        assert any(name.startswith("libtensorrt_rtx") for name in builder.libraries)
        with pytest.raises(UserError, match=r"none\.onnx: no such file"):
            build("two.plan", tmp_path / "none.onnx")
        build("two.plan")
        assert builder._process is process
        assert (tmp_path / "two.plan").exists()
        # It crashes: that is said, and the next build goes on.
        process.kill()
        process.wait()
        with pytest.raises(UserError, match="the process ended with signal 9"):
            build("three.plan")
        build("three.plan")
    finally:
        builder.close()


@pytest.fixture
def rtx() -> str:
    return pytest.importorskip("tensorrt_rtx").__version__


def test_a_step_that_fails_says_what_the_module_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.onnx"):
        doctor.run_step("ck_mlperf.models.recipe", str(tmp_path / "missing.onnx"))


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
