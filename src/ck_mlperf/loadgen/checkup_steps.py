"""What `ck doctor loadgen --gpu` measures: each step returns what it found, or raises why not."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.processes import run_module
from ck_mlperf.images.preprocessed import load_preprocessed
from ck_mlperf.loadgen.engines import make_engine
from ck_mlperf.models.recipe import load_model_recipe
from ck_mlperf.tensorrt.builder import Builder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ck_mlperf.loadgen.engines import Engine

IMAGES = 512
MAX_BATCH = 64
# Of the classes of random images, against ONNX Runtime on the CPU with the same file.
# int8: of the images that it is calibrated with, which leave fewer answers in doubt.
LEAST_AGREEMENT = {"fp32": 0.99, "fp16": 0.97, "int8": 0.97}
_SECONDS = 0.5
_COPY_SHAPE = (224, 224, 3)


@dataclass(frozen=True)
class Case:
    """A precision to check. folder: for its files."""

    precision: str
    folder: Path

    @property
    def converted(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def plan(self) -> Path:
        return self.folder / "model.plan"


@dataclass
class Steps:
    """The steps, of one machine and one model."""

    model: Path
    """A small ONNX classifier."""
    flavour: str | None
    """tensorrt or tensorrt_rtx; None: the one that is installed."""
    device: int
    """CUDA's number of the GPU."""
    calibration: Path | None = None
    """The folder of preprocessed images to calibrate int8 with."""
    timings: Path | None = None
    """The folder where builds keep their timings of kernels; None: the cases' own."""
    builder: Builder = field(default_factory=Builder)

    def describe_gpu(self) -> str:
        """The GPU and its driver, asked through CUDA."""
        from ck_mlperf.loadgen.engines.cuda import Gpu

        gpu = Gpu(self.device)
        driver = gpu.cuda.get_driver_version()
        text = (
            f"{gpu.name}, compute capability {gpu.compute_capability}, CUDA of the driver "
            f"{driver // 1000}.{driver % 1000 // 10}"
        )
        gpu.close()
        return text

    def measure_copies(self) -> str:
        """Random samples out of pinned memory: the right bytes arrive, and how fast."""
        from ck_mlperf.loadgen.engines.cuda import Gpu, PinnedSamples

        rng = np.random.default_rng(0)
        gpu = Gpu(self.device)
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

    def convert(self, case: Case) -> str:
        """Convert the ONNX file. Returns how long it took, as `build` does."""
        start = time.perf_counter()
        options = ["--source", str(self.model), "--output", str(case.converted)]
        options += ["--precision", case.precision, "--input", "native"]
        if case.precision == "int8":
            options += ["--calibration", str(self.calibration)]
        run_module("ck_mlperf.models.convert", *options)
        return f"{time.perf_counter() - start:.1f} s"

    def build(self, case: Case) -> str:
        """Build the plan of the converted file."""
        start = time.perf_counter()
        options = ["--model", str(case.converted), "--output", str(case.plan)]
        options += ["--precision", case.precision, "--max-batch", str(MAX_BATCH)]
        options += ["--timings", str(self.timings or case.folder.parent)]
        options += ["--flavour", self.flavour] if self.flavour else []
        # Whether the plan is right is asked, not how fast it is: no search for kernels, which
        # takes half a minute a plan.
        options += ["--builder-level", "0"] if self.flavour == "tensorrt" else []
        self.builder.build(*options)
        return f"{time.perf_counter() - start:.1f} s"

    def run_plan(self, case: Case) -> str:
        """The plan against ONNX Runtime on the CPU with the file that it was built from."""
        if case.precision == "int8" and self.calibration is not None:
            images = load_preprocessed(self.calibration).images[:IMAGES]
        else:
            side = load_model_recipe(case.converted).image.side
            images = np.random.default_rng(0).integers(0, 256, (IMAGES, side, side, 3), np.uint8)
        with make_engine("onnx", case.converted) as onnx:
            reference = Answers(f"ONNX Runtime {onnx.version}", classify(onnx, images))
        with make_engine("tensorrt", case.plan, device=self.device) as engine:
            agreement = compare_answers(engine, images, reference, LEAST_AGREEMENT[case.precision])
            latency_us, rate = time_engine(engine)
        return (
            f"{agreement}; one sample {latency_us:,.0f} us (median), batches of {MAX_BATCH} "
            f"{rate:,.0f} samples/s"
        )


class Answers(NamedTuple):
    """What an engine answers."""

    engine: str
    labels: NDArray[np.int32]


def compare_answers(
    engine: Engine, images: NDArray[np.uint8], reference: Answers, least: float
) -> str:
    """How many of an engine's labels are the reference's. Raises UserError below `least`."""
    agreement = float((classify(engine, images) == reference.labels).mean())
    if agreement < least:
        raise UserError(
            f"{agreement:.1%} of the answers are those of {reference.engine} on the CPU, want "
            f"{least:.0%}"
        )
    return (
        f"{engine.name} {engine.version} on {engine.device}: {agreement:.1%} of {len(images)} "
        f"answers agree with {reference.engine}"
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


def time_engine(engine: Engine, seconds: float = _SECONDS) -> tuple[float, float]:
    """Median latency of one sample in us, and samples/s of whole batches, of loaded images.

    seconds: how long each is measured.
    """
    latencies = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        engine.enqueue([0])
        engine.collect()
        latencies.append((time.perf_counter_ns() - start) / 1e3)
    rows, batches, in_flight = range(MAX_BATCH), 0, 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        if in_flight == engine.depth:
            engine.collect()
            in_flight -= 1
        engine.enqueue(rows)
        in_flight += 1
        batches += 1
    for _ in range(in_flight):
        engine.collect()
    return statistics.median(latencies), batches * MAX_BATCH / (time.perf_counter() - began)
