"""Check the GPU path of this machine: convert a small network, run it, compare, time it.

    python -m ck_mlperf.loadgen.doctor --model digits.onnx [--flavour tensorrt_rtx] [--device 0] \\
        [--calibration FOLDER] [--timings FOLDER]

Prints a report to paste into an issue; `ck doctor loadgen --gpu` calls it. Ends with status 1 where
a step failed, and does the steps that do not depend on it all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.images.preprocess import load_preprocessed
from ck_mlperf.loadgen.engines import make_engine
from ck_mlperf.machine.environment import NoGpuError, describe_environment
from ck_mlperf.machine.gpus import find_cuda_version
from ck_mlperf.models.recipe import load_model_recipe
from ck_mlperf.tensorrt.libraries import list_libraries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ck_mlperf.loadgen.engines import Engine

IMAGES = 512
MAX_BATCH = 64
# Of the classes of random images, against ONNX Runtime on the CPU with the same file.
# int8: of the images that it is calibrated with, which leave fewer answers in doubt.
LEAST_AGREEMENT = {"fp32": 0.99, "fp16": 0.97, "int8": 0.97}
_SECONDS = 0.5
_MOST_SAID = 4000  # characters, the last, of what a process said
_COPY_SHAPE = (224, 224, 3)


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of the check and how it went. detail: what was measured, or why it failed."""

    name: str
    passed: bool
    detail: str


class Checkup:
    """Does the steps one by one, prints each as it ends, and keeps them for the exit code.

    has_gpu: False once a step has said that there is none: the others do not say it again.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.has_gpu = True

    def check(self, name: str, measure: Callable[[], str]) -> bool:
        """Run one step; what it raises is its result, a defect's type with it."""
        try:
            step = Step(name, True, measure())
        except UserError as error:
            self.has_gpu = self.has_gpu and not isinstance(error, NoGpuError)
            step = Step(name, False, str(error))
        except Exception as error:  # whatever a GPU or its libraries come up with is the finding
            step = Step(name, False, f"{type(error).__name__}: {error}")
        self.steps.append(step)
        self._print(step.name, "ok" if step.passed else "FAILED", step.detail)
        return step.passed

    def skip(self, name: str, reason: str) -> None:
        """A step that is not done, for a reason that is no failure of its own."""
        self._print(name, "not done", reason)

    def check_on_gpu(self, name: str, measure: Callable[[], str]) -> bool:
        """`check`, where there is a GPU as far as is known."""
        if self.has_gpu:
            return self.check(name, measure)
        self.skip(name, "needs a GPU")
        return False

    @staticmethod
    def _print(name: str, result: str, detail: str) -> None:
        text = detail.strip().replace("\n", "<br>").replace("|", "\\|")
        print(f"| {name} | {result} | {text} |", flush=True)


class Builder:
    """Builds plans in one process, where TensorRT starts once. It crashes alone: the next build
    then starts another. libraries: NVIDIA's that it has loaded."""

    def __init__(self) -> None:
        self.libraries: set[str] = set()
        self._process: subprocess.Popen[str] | None = None
        self._said: IO[str]

    def build(self, *options: str) -> str:
        """A plan, by `ck_mlperf.tensorrt.build`'s options. Returns how long it took."""
        start = time.perf_counter()
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(options), file=process.stdin, flush=True)
        line = process.stdout.readline()
        if not line:
            raise UserError(self.close())
        answer = json.loads(line)
        self.libraries.update(answer["libraries"])
        if answer["error"]:
            raise UserError(answer["error"])
        return f"{time.perf_counter() - start:.1f} s"

    def _start(self) -> subprocess.Popen[str]:
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ck_mlperf.tensorrt.builds"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        return self._process

    def close(self) -> str:
        """Let the process end. Returns how it did, and what it said last."""
        if self._process is None:
            return ""
        process, self._process = self._process, None
        with contextlib.suppress(BrokenPipeError):
            process.communicate()
        with self._said as said:
            said.seek(0)
            text = said.read().strip()[-_MOST_SAID:]
        return f"{text}\n{describe_end(process.returncode)}".strip()


@dataclasses.dataclass(frozen=True)
class Case:
    """A precision to check. folder: for its files, not there yet."""

    precision: str
    folder: Path

    @property
    def converted(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def plan(self) -> Path:
        return self.folder / "model.plan"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ck_mlperf.loadgen.doctor", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--model", type=Path, required=True, help="a small ONNX classifier")
    parser.add_argument("--flavour", choices=["tensorrt", "tensorrt_rtx"], help="of TensorRT")
    parser.add_argument("--device", type=int, default=0, help="CUDA's number (default: 0)")
    parser.add_argument(
        "--calibration", type=Path, metavar="FOLDER", help="the model's preprocessed images"
    )
    parser.add_argument(
        "--timings", type=Path, metavar="FOLDER", help="where builds keep theirs between calls"
    )
    options = parser.parse_args()
    passed = examine(
        options.model, options.flavour, options.device, options.calibration, options.timings
    )
    return 0 if passed else 1


def examine(
    model: Path,
    flavour: str | None,
    device: int,
    calibration: Path | None = None,
    timings: Path | None = None,
) -> bool:
    """Do all steps and print the report. Whether each passed.

    calibration: preprocessed images for int8; None: int8 is not checked. timings: the folder in
    which builds keep their timings of kernels for the next call; None: for this call only.
    """
    print_environment()
    print("| step | result | details |\n|---|---|---|")
    checkup = Checkup()
    checkup.check("GPU and driver", lambda: describe_gpu(device))
    checkup.check_on_gpu("copies into the device", lambda: measure_copies(device))
    builder = Builder()
    with tempfile.TemporaryDirectory(prefix="ck-doctor-") as folder, contextlib.ExitStack() as ends:
        ends.callback(builder.close)
        cases = [Case(precision, Path(folder) / precision) for precision in LEAST_AGREEMENT]
        built = build_plans(checkup, builder, model, cases, flavour, calibration, timings)
        builder.close()  # its memory on the GPU
        for case in built:
            images = calibration if case.precision == "int8" else None
            checkup.check_on_gpu(
                f"run the plan, {case.precision}",
                lambda case=case, images=images: compare_engines(  # type: ignore[misc]
                    case.converted, case.plan, device, LEAST_AGREEMENT[case.precision], images
                ),
            )
    failed = [step.name for step in checkup.steps if not step.passed]
    print()
    print_libraries(builder.libraries)
    if failed:
        print(f"FAILED: {', '.join(failed)}. Please paste all of this into an issue.")
    else:
        print(
            "All steps passed: this GPU runs plans. Please paste this into an issue all the same."
        )
    return not failed


def build_plans(
    checkup: Checkup,
    builder: Builder,
    model: Path,
    cases: Sequence[Case],
    flavour: str | None,
    calibration: Path | None,
    timings: Path | None,
) -> list[Case]:
    """Convert and build every precision, as far as it goes. Returns those that have a plan.

    A file is converted, on the CPU, while the plan before it is built on the GPU.
    """
    built = []
    with ThreadPoolExecutor(1) as pool:
        conversions = {}
        for case in cases:
            case.folder.mkdir()
            if case.precision != "int8" or calibration is not None:
                conversions[case] = pool.submit(convert, model, case, calibration)
        for case in cases:
            name = f"convert the ONNX file, {case.precision}"
            if case not in conversions:
                checkup.skip(name, "no images to calibrate with were given")
                continue
            if not checkup.check(name, conversions[case].result):
                continue
            options = ["--model", str(case.converted), "--output", str(case.plan)]
            options += ["--precision", case.precision, "--max-batch", str(MAX_BATCH)]
            options += ["--timings", str(timings or case.folder.parent)]
            options += ["--flavour", flavour] if flavour else []
            # Whether the plan is right is asked, not how fast it is: no search for kernels, which
            # takes half a minute a plan.
            options += ["--builder-level", "0"] if flavour == "tensorrt" else []
            # TensorRT for RTX builds without a GPU.
            check = checkup.check_on_gpu if flavour == "tensorrt" else checkup.check
            if check(f"build the plan, {case.precision}", lambda: builder.build(*options)):  # noqa: B023
                built.append(case)
    return built


def convert(model: Path, case: Case, calibration: Path | None) -> str:
    options = ["--source", str(model), "--output", str(case.converted)]
    options += ["--precision", case.precision, "--input", "native"]
    if case.precision == "int8":
        options += ["--calibration", str(calibration)]
    return run_step("ck_mlperf.models.convert", *options)


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


def print_libraries(loaded: set[str]) -> None:
    """NVIDIA's libraries that this process or `loaded` has in use; distributions that have some."""
    listed = ", ".join(sorted(loaded.union(list_libraries())))
    cuda = find_cuda_version()
    versions = {
        (distribution.metadata["Name"] or "").replace("_", "-"): distribution.version
        for distribution in importlib.metadata.distributions()
    }
    names = [
        f"{name} {versions[name]}"
        for name in sorted(versions)
        if name.startswith(("nvidia-", "tensorrt", "cuda-")) and not name.endswith("-stubs")
    ]
    print(f"- CUDA of the driver: {'none' if cuda is None else f'{cuda[0]}.{cuda[1]}'}")
    print(f"- NVIDIA's libraries in use: {listed or 'none'}")
    print(f"- distributions with such: {', '.join(names) or 'none'}\n")


def describe_gpu(device: int) -> str:
    from ck_mlperf.loadgen.engines.cuda import Gpu

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
    from ck_mlperf.loadgen.engines.cuda import Gpu, PinnedSamples

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
        raise UserError(process.stderr.strip()[-_MOST_SAID:] or describe_end(process.returncode))
    return f"{time.perf_counter() - start:.1f} s"


def describe_end(code: int) -> str:
    """How a process ended that should not have: its exit code, or the signal that killed it."""
    return f"the process ended with {f'exit code {code}' if code >= 0 else f'signal {-code}'}"


def compare_engines(
    converted: Path, plan: Path, device: int, least: float, folder: Path | None = None
) -> str:
    """The plan against ONNX Runtime on the CPU with the file that it was built from.

    folder: of preprocessed images; None: random ones.
    """
    side = load_model_recipe(converted).image.side
    if folder is None:
        images = np.random.default_rng(0).integers(0, 256, (IMAGES, side, side, 3), np.uint8)
    else:
        images = load_preprocessed(folder).images[:IMAGES]
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
            f"{engine.name} {engine.version} on {engine.device}: {agreement:.1%} of {len(images)} "
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
