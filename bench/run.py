"""What the whole run path costs on a real network: LoadGen and all against a bare loop.

`make bench-run`. ResNet-50 (random weights: the speed is that of the trained one) in Offline under
ONNX Runtime on the CPU, against a loop that does nothing but call the same session with batches of
the same size and take the best class. The two take turns batch by batch within one test, so that
whatever else the machine does hits both. Exits 1 where the run path reaches less than 0.98 of the
bare loop.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SRC = str(ROOT / "src")
sys.path.insert(0, SRC)

import numpy as np  # noqa: E402
from harness import read_result  # noqa: E402

from ck_mlperf.loadgen.engines.onnxruntime_cpu import OnnxRuntimeCpu  # noqa: E402
from ck_mlperf.loadgen.one_test import run_test  # noqa: E402
from ck_mlperf.loadgen.settings import RunSettings  # noqa: E402

MAKE_MODEL = ROOT / "package/model-onnx-resnet50/make_resnet50.py"
IMAGES = 64
BATCH_SIZE = 16
LEAST_RATIO = 0.98


class TurnTakingEngine(OnnxRuntimeCpu):
    """Runs a batch of the bare loop before each batch of LoadGen's, and times both."""

    def __init__(self, model: Path) -> None:
        super().__init__(model)
        self.bare_s: list[float] = []
        self.path_s: list[float] = []
        self._bare_ended: float | None = None

    def enqueue(self, rows: Sequence[int]) -> None:
        if len(rows) == BATCH_SIZE:  # not the warm-up
            started = time.perf_counter()
            if self._bare_ended is not None:
                self.path_s.append(started - self._bare_ended)
            self._run_bare()
            self._bare_ended = time.perf_counter()
            self.bare_s.append(self._bare_ended - started)
        super().enqueue(rows)

    def _run_bare(self) -> None:
        first = len(self.bare_s) * BATCH_SIZE % IMAGES
        batch = {self._recipe.input.name: self._images[first : first + BATCH_SIZE]}
        (scores,) = self._session.run([self._recipe.output.name], batch)
        scores.argmax(axis=1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-run", description=__doc__)
    parser.add_argument("--batches", type=int, default=48, help="of each (default: 48)")
    samples = parser.parse_args().batches * BATCH_SIZE
    settings = RunSettings(
        scenario="Offline",
        mode="PerformanceOnly",
        batch_size=BATCH_SIZE,
        count_override=samples,
        target_qps=1,  # given, so that the run path does not measure it with batches of its own
    )
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 224, 224, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, MAKE_MODEL, folder],
            check=True,
            env=os.environ | {"PYTHONPATH": SRC},
            stdout=subprocess.DEVNULL,
        )
        (model,) = Path(folder).glob("*.onnx")
        with TurnTakingEngine(model) as engine:
            run_test(settings, engine, images, Path(folder))
        total_s = samples / read_result(Path(folder), "result_samples_per_second")
    bare_total_s = sum(engine.bare_s)
    for name, batches_s, all_s in (
        ("the run path", engine.path_s, total_s - bare_total_s),
        ("a bare loop", engine.bare_s, bare_total_s),
    ):
        print(
            f"ResNet-50, Offline, batch {BATCH_SIZE}, {engine.device}: {name:12} "
            f"median {BATCH_SIZE / statistics.median(batches_s):7.2f} samples/s   "
            f"all {samples / all_s:7.2f} samples/s"
        )
    pairs = zip(engine.path_s, engine.bare_s[:-1], strict=True)
    ratio = statistics.median(bare / path for path, bare in pairs)
    is_met = ratio >= LEAST_RATIO
    print(
        f"{'PASS' if is_met else 'FAIL'}  ratio, median of {len(engine.path_s)} pairs: {ratio:.4f} "
        f"(of all: {bare_total_s / (total_s - bare_total_s):.4f})   wanted at least {LEAST_RATIO}"
    )
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
