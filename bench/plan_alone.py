"""What the benches of TensorRT share: plans to measure, and the speed of a plan by itself.

"Alone" is the plan with nothing around it: prepared images that stay on the device, a CUDA graph
for each batch.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import ROOT, print_verdict

from ck_mlperf.images.preprocessed import load_preprocessed
from ck_mlperf.loadgen.engines.cuda import Graph
from ck_mlperf.loadgen.engines.tensorrt import TensorRt

MAKE_MODEL = ROOT / "package" / "model-onnx-resnet50" / "make_resnet50.py"
IMAGES = 1024
SIDE = 224


def judge(what: str, value: str, wanted: str, is_met: bool) -> bool:
    print_verdict(is_met, what, value, wanted)
    return is_met


class Alone(TensorRt):
    """The plan with a slot for each stream."""

    at_once = depth = 3

    def hold(self, images: np.ndarray, batch: int) -> list[tuple[Any, Graph]]:
        """Leave a batch of prepared images in each slot. The slots, each with its network."""
        self.prepare([batch])
        self.load(images)
        rows = [row % len(images) for row in range(batch)]
        for _ in range(self.depth):
            self.enqueue(rows)
        for _ in range(self.depth):
            self.collect()
        held = []
        with self._gpu:
            for slot in self._slots:
                graph = Graph(slot.compute_stream, self._run(slot))
                self._prepared.callback(graph.free)
                held.append((slot, graph))
        return held

    def _run(self, slot: Any) -> Callable[[], None]:
        lane = self._lanes[slot.compute_stream.handle]
        context = lane.context
        assert context is not None
        return lambda: context.execute(lane.stream.handle)


def time_alone(
    plan: Path, device: int, images: np.ndarray, batch: int, seconds: float = 1.5
) -> dict[int, float]:
    """Samples per second of the plan alone, by the number of streams, `seconds` for each."""
    rates = {}
    engine = Alone(plan, device=device)
    with engine:
        held = engine.hold(images, batch)
        with engine._gpu as gpu:
            for streams in range(1, len(held) + 1):
                rates[streams] = time_streams(gpu, held[:streams], batch, seconds)
    return rates


def time_streams(gpu: Any, held: list[tuple[Any, Graph]], batch: int, seconds: float) -> float:
    for _, graph in held:
        graph.launch()
    gpu.synchronize()
    batches, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for slot, graph in held:
            # A stream always has two batches, so the GPU never waits for this loop.
            slot.done_asleep.synchronize()
            slot.done_asleep.record(slot.compute_stream)
            graph.launch()
            batches += 1
    gpu.synchronize()
    return batches * batch / (time.perf_counter() - start)


def time_latency(plan: Path, images: np.ndarray, batch: int) -> list[float]:
    """Median, 90th and 99th percentile of the latency of one batch of the plan alone, in ms."""
    latencies = []
    engine = Alone(plan)
    with engine:
        slot, graph = engine.hold(images, batch)[0]
        with engine._gpu:
            end = time.perf_counter() + 2
            while time.perf_counter() < end:
                start = time.perf_counter()
                graph.launch()
                slot.done.record(slot.compute_stream)
                slot.done.synchronize()
                latencies.append((time.perf_counter() - start) * 1e3)
    return [float(np.percentile(latencies, share)) for share in (50, 90, 99)]


def run_python(*arguments: Any) -> str:
    """The output of another Python; if that fails, this one ends."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    command = [sys.executable, *map(str, arguments)]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if process.returncode:
        raise SystemExit(f"{' '.join(command[1:])} failed")
    return process.stdout


def make_images(folder: Path | None) -> np.ndarray:
    """uint8 [1024, 224, 224, 3]: those of a preprocessed set, repeated, or random ones."""
    if folder is None:
        return np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)
    images = load_preprocessed(folder).images
    return np.ascontiguousarray(images[np.arange(IMAGES) % len(images)])


def make_calibration(folder: Path, source: Path) -> Path:
    """A preprocessed set of random images, for a network with random weights."""
    import cv2

    from ck_mlperf.images.preprocess import preprocess
    from ck_mlperf.models.recipe import load_model_recipe

    originals = folder / "calibration-originals"
    originals.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for number in range(32):
        path = originals / f"{number}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (256, 256, 3), np.uint8))
    recipe = load_model_recipe(source)
    target = folder / "calibration"
    preprocess(originals, target, recipe.image, dataset=recipe.dataset, labelled=False)
    return folder / "calibration"


def make_plan(text: str, options: argparse.Namespace) -> tuple[Path, int]:
    """The plan of 'int8:256', built or reused, and its batch."""
    precision, _, size = text.partition(":")
    source, folder = options.model, options.folder
    if source is None:
        source = folder / "resnet50_random.onnx"
        if not source.exists():
            run_python(MAKE_MODEL, folder)
    model = folder / f"{source.stem}-{precision}.onnx"
    if not model.exists():
        more: list[Any] = []
        if precision == "int8":
            more = ["--calibration", options.calibration or make_calibration(folder, source)]
        run_python(
            *("-m", "ck_mlperf.models.convert", "--source", source, "--output", model),
            *("--precision", precision, "--input", "native", *more),
        )
    plan = folder / f"{model.stem}-{options.input}-{size}.plan"
    run_python(
        *("-m", "ck_mlperf.tensorrt.build", "--flavour", "tensorrt", "--model", model),
        *("--output", plan, "--precision", precision, "--max-batch", size),
        *("--input", options.input, "--timings", folder),
    )
    return plan, int(size)
