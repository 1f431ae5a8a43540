"""The harness against the plan alone, on an NVIDIA GPU with TensorRT.

`make bench-tensorrt`. The plan alone (bench/plan_alone.py) is measured before and after the test,
in the same process, on one to three streams of which the best counts. Exits 1 if the harness
reaches too small a share of it, or more than all of it, because then the bench is wrong. `--table`
adds a line for each figure to a Markdown file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from harness import ROOT
from plan_alone import Alone, judge, make_images, make_plan, run_python, time_alone, time_latency

from ck_mlperf.loadgen.engines import Engine
from ck_mlperf.loadgen.engines.tensorrt import TensorRt
from ck_mlperf.loadgen.harness.native import choose_interface
from ck_mlperf.loadgen.one_test import run_test
from ck_mlperf.loadgen.settings import RunSettings
from ck_mlperf.machine.environment import describe_environment
from ck_mlperf.tensorrt.api import find_version

LEAST_OFFLINE_RATIO = 0.98
LEAST_SERVER_SHARE = 0.95
SERVER_STEP = 0.02
MOST_SERVER_TESTS = 4
MOST_STREAMS = Alone.depth
# How much two measurements of the same thing differ.
NOISE = 0.01
PLANS = ("int8:256", "int8:2048", "int8:32", "fp16:256", "fp16:2048", "fp16:32")
RESULT_KEYS = {
    "Offline": ["result_samples_per_second"],
    "SingleStream": ["result_90.00_percentile_latency_ns"],
    "MultiStream": ["result_99.00_percentile_latency_ns"],
    "Server": ["result_completed_samples_per_sec", "result_99.00_percentile_latency_ns"],
}
# The percentile that decides a scenario, and its index in the answer of `time_latency`.
PERCENTILES = {"SingleStream": (90, 1), "MultiStream": (99, 2)}


def run_loadgen(
    engines: Sequence[Engine], images: np.ndarray, settings: RunSettings, native: Path | None
) -> dict[str, Any]:
    interface, _ = choose_interface(native)
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_test(settings, engines, images, Path(folder), interface)
        log = (Path(folder) / "mlperf_log_detail.txt").read_text().splitlines()
    records = [json.loads(line.removeprefix(":::MLLOG ")) for line in log]
    values = {record["key"]: record["value"] for record in records}
    figures = {key: values[key] for key in ["result_validity", *RESULT_KEYS[settings.scenario]]}
    return figures | {"interface": interface.name, "gpus": outcome.conditions.get("gpus")}


def serve_child(
    scenario: str, plan: Path, batch: int, rate: float, options: argparse.Namespace
) -> dict[str, Any]:
    """One test in this process, with the plan alone before and after it, except in Server."""
    images, native = make_images(options.images), options.native
    TensorRt.depth = options.slots or TensorRt.depth
    engines = [TensorRt(plan, device=device) for device in range(options.gpus)]
    common: dict[str, Any] = {
        "scenario": scenario,
        "mode": "PerformanceOnly",
        "batch_size": batch,
        "dataset_size": len(images),
        "buffer_size": len(images),
    }

    def run(**more: Any) -> dict[str, Any]:
        for engine in engines:
            engine.open()
        try:
            return run_loadgen(engines, images, RunSettings(**(common | more)), native)
        finally:
            for engine in engines:
                engine.close()

    if scenario == "Server":
        return run(duration_s=options.seconds, count_override=1, target_qps=rate)
    if scenario == "Offline":
        for device in range(options.gpus):  # a cold GPU is faster than it is in a longer test
            time_alone(plan, device, images, batch, options.warm_up / MOST_STREAMS)
        before = [time_alone(plan, device, images, batch) for device in range(options.gpus)]
        expected = sum(max(rates.values()) for rates in before)
        count = round(expected * options.seconds / batch) * batch
        figures = run(count_override=count, target_qps=expected)
        after = [time_alone(plan, device, images, batch) for device in range(options.gpus)]
        return figures | {"alone": [before, after]}
    latency = time_latency(plan, images, batch)
    more: dict[str, Any] = {"multistreamness": batch} if scenario == "MultiStream" else {}
    count = max(1000, int(options.seconds * 1e3 / latency[0]))
    figures = run(count_override=count, target_latency_ms=latency[0], **more)
    return figures | {"alone": [latency, time_latency(plan, images, batch)]}


def run_child(
    scenario: str, plan: Path, batch: int, options: argparse.Namespace, rate: float = 0
) -> dict[str, Any]:
    """One test in a process of its own, because LoadGen runs only one in a process."""
    command: list[Any] = [__file__, "--child", scenario, plan, batch, rate]
    for name in ("gpus", "seconds", "warm-up", "slots", "native", "images"):
        value = getattr(options, name.replace("-", "_"))
        if value is not None:
            command += [f"--{name}", value]
    return json.loads(run_python(*command).splitlines()[-1])  # type: ignore[no-any-return]


def measure_offline(
    text: str, plan: Path, batch: int, options: argparse.Namespace
) -> tuple[float, list[str], bool]:
    figures = run_child("Offline", plan, batch, options)
    before, after = figures["alone"]
    alone = {
        streams: statistics.mean(sum(gpu[streams] for gpu in side) for side in (before, after))
        for streams in before[0]
    }
    best = max(alone, key=alone.__getitem__)
    rate = figures["result_samples_per_second"]
    ratio = rate / alone[best]
    print(
        f"  {rate:,.0f} samples/s by LoadGen's {figures['interface']} interface; alone "
        + ", ".join(f"{value:,.0f} on {streams}" for streams, value in alone.items())
        + " streams",
        flush=True,
    )
    is_met = judge(
        f"{text}, Offline over the plan alone",
        f"{ratio:.4f}",
        f"at least {LEAST_OFFLINE_RATIO}",
        ratio >= LEAST_OFFLINE_RATIO,
    )
    if ratio > 1 + NOISE:
        is_met = judge(text, f"{ratio:.4f}", "at most 1: this bench is wrong", False)
    cells = [text, "Offline", f"{rate:,.0f} samples/s", f"{alone[best]:,.0f}", f"{ratio:.3f}"]
    return rate, cells, is_met


def measure_latency(
    text: str, scenario: str, plan: Path, batch: int, options: argparse.Namespace
) -> list[str]:
    figures = run_child(scenario, plan, batch, options)
    percentile, place = PERCENTILES[scenario]
    alone = statistics.mean(side[place] for side in figures["alone"])
    latency = figures[RESULT_KEYS[scenario][0]] / 1e6
    print(
        f"  {text}, {scenario}: p{percentile} {latency:.4f} ms, the plan alone {alone:.4f} ms",
        flush=True,
    )
    return [
        text,
        scenario,
        f"p{percentile} {latency:.3f} ms",
        f"{alone:.3f}",
        f"{alone / latency:.3f}",
    ]


def measure_server(
    text: str, plan: Path, batch: int, offline: float, options: argparse.Namespace
) -> tuple[list[str], bool]:
    """The largest share of the Offline rate that was VALID, in steps from the least required."""
    share, best, failed = LEAST_SERVER_SHARE, 0.0, 2.0
    p99 = float("nan")
    for _ in range(MOST_SERVER_TESTS):
        figures = run_child("Server", plan, batch, options, share * offline)
        is_valid = figures["result_validity"] == "VALID"
        latency = figures["result_99.00_percentile_latency_ns"] / 1e6
        print(
            f"  Server at {share:.2f} of Offline, {share * offline:,.0f} queries/s: "
            f"{figures['result_validity']}, p99 {latency:.2f} ms",
            flush=True,
        )
        if is_valid:
            best, p99 = share, latency
        else:
            failed = share
        share = round(share + (SERVER_STEP if is_valid else -SERVER_STEP), 2)
        if share in (best, failed) or share >= 1:
            break
    is_met = judge(
        f"{text}, Server, largest VALID share of Offline",
        f"{best:.2f}",
        f"at least {LEAST_SERVER_SHARE}",
        best >= LEAST_SERVER_SHARE,
    )
    measured = f"{best * offline:,.0f} queries/s, p99 {p99:.1f} ms" if best else "none VALID"
    return [text, "Server", measured, f"{offline:,.0f}", f"{best:.2f}"], is_met


def write_table(path: Path, rows: list[list[str]], options: argparse.Namespace) -> None:
    """Add the figures to a Markdown file, with what they were measured on."""
    gpus = describe_environment(ROOT)["gpus"][: options.gpus]
    names = ", ".join(f"{gpu['name']} (driver {gpu['driver']})" for gpu in gpus)
    lines = [
        f"{names}, TensorRT {find_version('tensorrt')}, {options.input} samples, {date.today()}",
        "",
        "| plan | scenario | measured | the plan alone | ratio |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {' | '.join(cells)} |" for cells in rows),
        "",
    ]
    with path.open("a") as file:
        file.write("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-tensorrt", description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, help="ONNX file with its recipe (ResNet-50 with random weights)")
    add("--calibration", type=Path, help="preprocessed images, for int8 (random ones)")
    add("--images", type=Path, help="preprocessed images to classify (random ones)")
    add("--plans", nargs="+", default=PLANS, metavar="PRECISION:BATCH", help=" ".join(PLANS))
    add("--input", default="uint8", help="what samples are (uint8)")
    add("--scenarios", nargs="+", default=["Offline"], choices=RESULT_KEYS, help="(Offline)")
    add("--gpus", type=int, default=1, help="how many, from the first (1)")
    add("--slots", type=int, default=0, help="batches in flight on a GPU (the engine's)")
    add("--native", type=Path, help="the library of package:lib-loadgen-native")
    add("--seconds", type=float, default=8, help="of each test (8)")
    add("--warm-up", type=float, default=15, help="seconds that a GPU is busy before (15)")
    add("--folder", type=Path, default=ROOT / ".ck" / "bench", help="for models and plans")
    add("--table", type=Path, help="Markdown file to add to")
    add("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        scenario, plan_path, size, target = options.child
        print(json.dumps(serve_child(scenario, Path(plan_path), int(size), float(target), options)))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    verdicts, rows = [], []
    for text in options.plans:
        plan, batch = make_plan(text, options)
        offline = 0.0
        for scenario in options.scenarios:
            if scenario == "Offline":
                offline, cells, is_met = measure_offline(text, plan, batch, options)
            elif scenario == "Server":
                cells, is_met = measure_server(text, plan, batch, offline, options)
            else:
                cells, is_met = measure_latency(text, scenario, plan, batch, options), True
            verdicts.append(is_met)
            rows.append(cells)
    if options.table:
        write_table(options.table, rows, options)
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
