"""Check the GPU path of this machine: convert a small network, run it, compare, time it.

    python -m loadgen_helper.doctor --model digits.onnx [--flavour tensorrt_rtx] [--device 0]

Prints a report to paste into an issue; `ck doctor loadgen --gpu` calls it. Ends with status 1 where
a step failed, and does the steps that do not depend on it all the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from imagenet_helper.errors import UserError, run_main
from imagenet_helper.model import load_model_recipe

from .engines import make_engine
from .environment import describe_environment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .engines import Engine

IMAGES = 512
MAX_BATCH = 64
# Of the classes of random images, against ONNX Runtime on the CPU with the same file.
LEAST_AGREEMENT = {"fp32": 0.99, "fp16": 0.97}
_SECONDS = 0.5
_COPY_SHAPE = (224, 224, 3)


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of the check and how it went. detail: what was measured, or why it failed."""

    name: str
    passed: bool
    detail: str


class Checkup:
    """Does the steps one by one, prints each as it ends, and keeps them for the exit code."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def check(self, name: str, measure: Callable[[], str]) -> bool:
        """Run one step; what it raises is its result, a defect's type with it."""
        try:
            step = Step(name, True, measure())
        except UserError as error:
            step = Step(name, False, str(error))
        except Exception as error:  # whatever a GPU or its libraries come up with is the finding
            step = Step(name, False, f"{type(error).__name__}: {error}")
        self.steps.append(step)
        detail = step.detail.strip().replace("\n", "<br>").replace("|", "\\|")
        print(f"| {step.name} | {'ok' if step.passed else 'FAILED'} | {detail} |", flush=True)
        return step.passed


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadgen_helper.doctor", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--model", type=Path, required=True, help="a small ONNX classifier")
    parser.add_argument("--flavour", choices=["tensorrt", "tensorrt_rtx"], help="of TensorRT")
    parser.add_argument("--device", type=int, default=0, help="CUDA's number (default: 0)")
    options = parser.parse_args()
    return 0 if examine(options.model, options.flavour, options.device) else 1


def examine(model: Path, flavour: str | None, device: int) -> bool:
    """Do all steps and print the report. Whether each passed."""
    print_environment()
    print("| step | result | details |\n|---|---|---|")
    checkup = Checkup()
    checkup.check("GPU and driver", lambda: describe_gpu(device))
    checkup.check("copies into the device", lambda: measure_copies(device))
    with tempfile.TemporaryDirectory(prefix="ck-doctor-") as folder:
        for precision in LEAST_AGREEMENT:
            check_plan(checkup, model, Path(folder) / precision, precision, flavour, device)
    failed = [step.name for step in checkup.steps if not step.passed]
    print()
    if failed:
        print(f"FAILED: {', '.join(failed)}. Please paste all of this into an issue.")
    else:
        print(
            "All steps passed: this GPU runs plans. Please paste this into an issue all the same."
        )
    return not failed


def check_plan(
    checkup: Checkup, model: Path, folder: Path, precision: str, flavour: str | None, device: int
) -> None:
    """Convert, build and run in one precision, as far as it goes."""
    folder.mkdir()
    converted, plan = folder / "model.onnx", folder / "model.plan"

    def convert() -> str:
        return run_step(
            *("imagenet_helper.convert", "--source", str(model)),
            *("--output", str(converted), "--precision", precision),
        )

    def build() -> str:
        return run_step(
            *("tensorrt_helper.build", "--model", str(converted), "--output", str(plan)),
            *("--precision", precision, "--max-batch", str(MAX_BATCH)),
            *(["--flavour", flavour] if flavour else []),
        )

    def run() -> str:
        return compare_engines(converted, plan, device, LEAST_AGREEMENT[precision])

    if checkup.check(f"convert the ONNX file, {precision}", convert) and checkup.check(
        f"build the plan, {precision}", build
    ):
        checkup.check(f"run the plan, {precision}", run)


def print_environment() -> None:
    """What the machine and its libraries are, as a list."""
    environment = describe_environment(Path(__file__).resolve().parents[3])
    gpus = environment["gpus"]
    names = [f"{gpu['name']} (driver {gpu['driver']})" for gpu in gpus]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    print("## ck doctor loadgen --gpu\n")
    print(f"- GPUs by nvidia-smi: {'; '.join(names) or 'none'}")
    print(f"- system: {environment['os']}, {environment['python']}")
    print(f"- packages: {packages}\n")


def describe_gpu(device: int) -> str:
    from .engines.cuda import Gpu

    gpu = Gpu(device)
    driver = gpu.cuda.get_driver_version()
    text = (
        f"{gpu.name}, compute capability {gpu.compute_capability}, CUDA of the driver "
        f"{driver // 1000}.{driver % 1000 // 10}"
    )
    gpu.close()
    return text


def measure_copies(device: int) -> str:
    """Random samples out of pinned memory: the right bytes arrive, and how fast."""
    from .engines.cuda import Gpu, PinnedSamples

    rng = np.random.default_rng(0)
    gpu = Gpu(device)
    try:
        with gpu:
            samples = PinnedSamples(gpu.cuda, 256, _COPY_SHAPE, np.dtype(np.uint8))
            samples.array[:] = rng.integers(0, 256, samples.array.shape, np.uint8)
            rows = rng.permutation(256)[:128].tolist()
            target = gpu.cuda.mem_alloc(len(rows) * samples.array[0].nbytes)
            places = samples.place(int(target), len(rows))
            stream = gpu.cuda.Stream()
            count, start = 0, time.perf_counter()
            while time.perf_counter() - start < _SECONDS:
                samples.copy_batch(rows, places, stream)
                stream.synchronize()
                count += len(rows)
            rate = count / (time.perf_counter() - start)
            arrived = np.empty((len(rows), *_COPY_SHAPE), np.uint8)
            gpu.cuda.memcpy_dtoh(arrived, target)
            if not (arrived == samples.array[rows]).all():
                raise UserError("other bytes arrived than were sent")
            text = f"{rate:,.0f} samples/s, {rate * samples.array[0].nbytes / 1e9:.1f} GB/s"
            target.free()
            samples.free()
    finally:
        gpu.close()
    return text


def run_step(*arguments: str) -> str:
    """A module of the helpers in a process of its own. Returns how long it took."""
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise UserError(process.stderr.strip() or f"exit code {process.returncode}")
    return f"{time.perf_counter() - start:.1f} s"


def compare_engines(converted: Path, plan: Path, device: int, least: float) -> str:
    """The plan against ONNX Runtime on the CPU with the file that it was built from."""
    side = load_model_recipe(converted).image.side
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, side, side, 3), np.uint8)
    with make_engine("onnx", converted) as reference:
        wanted = classify(reference, images)
    with make_engine("tensorrt", plan, device=device) as engine:
        got = classify(engine, images)
        agreement = float((got == wanted).mean())
        if agreement < least:
            raise UserError(
                f"{agreement:.1%} of the answers are those of ONNX Runtime {reference.version} on "
                f"the CPU, want {least:.0%}"
            )
        latency_us, rate = time_engine(engine, images)
        return (
            f"{engine.name} {engine.version} on {engine.device}: {agreement:.1%} of {IMAGES} "
            f"answers agree with ONNX Runtime {reference.version}; one sample {latency_us:,.0f} us "
            f"(median), batches of {MAX_BATCH} {rate:,.0f} samples/s"
        )


def classify(engine: Engine, images: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The labels of all images, in batches of every size up to MAX_BATCH in turn."""
    engine.prepare([1, 2, 8, MAX_BATCH])
    engine.load(images)
    labels: list[NDArray[np.int32]] = []
    begin, size = 0, 1
    while begin < len(images):
        rows = range(begin, min(begin + size, len(images)))
        engine.enqueue(rows)
        answers = engine.collect()
        labels.append(answers if answers.ndim == 1 else answers[:, 0])
        begin, size = rows.stop, size % MAX_BATCH + 1
    return np.concatenate(labels)


def time_engine(engine: Engine, images: NDArray[np.uint8]) -> tuple[float, float]:
    """Median latency of one sample in us, and samples/s of whole batches."""
    latencies = []
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        engine.enqueue([0])
        engine.collect()
        latencies.append((time.perf_counter_ns() - start) / 1e3)
    rows, batches, in_flight = range(MAX_BATCH), 0, 0
    began = time.perf_counter()
    while time.perf_counter() - began < _SECONDS:
        if in_flight == engine.depth:
            engine.collect()
            in_flight -= 1
        engine.enqueue(rows)
        in_flight += 1
        batches += 1
    for _ in range(in_flight):
        engine.collect()
    return statistics.median(latencies), batches * MAX_BATCH / (time.perf_counter() - began)


if __name__ == "__main__":
    run_main(main)
