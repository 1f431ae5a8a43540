"""Measure an ONNX classifier on the CPU in LoadGen's Offline scenario.

    python examples/run_test.py MODEL.onnx PREPROCESSED_FOLDER

`python -m ck_mlperf.images.preprocess` makes the folder. LoadGen's logs go to ./logs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ck_mlperf.common.errors import run_main
from ck_mlperf.images.preprocess import load_preprocessed
from ck_mlperf.loadgen.engines import make_engine
from ck_mlperf.loadgen.one_test import run_test
from ck_mlperf.loadgen.settings import RunSettings
from ck_mlperf.results.logs import read_result


def main() -> None:
    model, folder = map(Path, sys.argv[1:3])
    settings = RunSettings(
        scenario="Offline", mode="PerformanceOnly", batch_size=16, count_override=5000
    )
    logs = Path("logs")
    logs.mkdir(exist_ok=True)
    images = load_preprocessed(folder)
    with make_engine("onnx", model) as engine:
        run_test(settings, engine, images.images, logs)
    performance = read_result(logs).performance
    verdict = "VALID" if performance.is_valid else f"INVALID: {performance.reasons}"
    print(f"{performance.throughput.samples_per_second:,.0f} samples/s, {verdict}")


run_main(main)
