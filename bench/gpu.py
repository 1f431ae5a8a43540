"""What the GPU path costs: the copies to the device, and ONNX Runtime's CUDA engine under LoadGen.

`make bench-gpu`, on a machine with an NVIDIA GPU, pycuda and onnxruntime-gpu. Each verdict is on a
ratio of two things measured in this run, or on a rate. Exits 1 where one falls short.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_copies import (
    BATCHES,
    IMAGES,
    SAMPLE_BYTES,
    SAMPLE_SHAPE,
    CopyOnly,
    Shuffled,
    make_images,
    measure_ways,
)
from harness import judge, print_verdict, read_result

from ck_mlperf.loadgen.engines.cuda_engine import CudaEngine
from ck_mlperf.loadgen.engines.onnxruntime_cuda import OnnxRuntimeCuda
from ck_mlperf.loadgen.one_test import run_test
from ck_mlperf.loadgen.settings import RunSettings
from ck_mlperf.models.recipe import load_model_recipe

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
MAKE_MODEL = ROOT / "package" / "model-onnx-resnet50" / "make_resnet50.py"
COPY_BATCH = 512
COPY_SAMPLES = 3_000_000

LEAST_COPY_SAMPLES_PER_S = 300_000
LEAST_COPY_SHARE = 0.85
LEAST_OFFLINE_RATIO = 0.98
MOST_SINGLE_STREAM_NS = 30_000
LEAST_SERVER_SHARE = 0.85
SERVER_STEP = 0.025


def run_loadgen(engine: CudaEngine, settings: RunSettings) -> dict[str, Any]:
    """One test on an open engine: LoadGen's figures, and the processor's time for it."""
    key = RESULT_KEYS[settings.scenario]
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_SELF)
        outcome = run_test(settings, engine, make_images(), Path(folder))
        after = resource.getrusage(resource.RUSAGE_SELF)
        figures: dict[str, Any] = {
            "wall_s": outcome.wall_s,
            key: read_result(Path(folder), key),
        }
        summary = (Path(folder) / "mlperf_log_summary.txt").read_text()
        figures["valid"] = "Result is : VALID" in summary
        p99 = re.search(r"99\.00 percentile latency \(ns\)\s*:\s*(\d+)", summary)
        figures["p99_ns"] = p99 and int(p99.group(1))
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures["cpu_s"] = used
    return figures


RESULT_KEYS = {
    "Offline": "result_samples_per_second",
    "SingleStream": "result_50.00_percentile_latency_ns",
    "Server": "result_completed_samples_per_sec",
}


def make_settings(scenario: str, batch_size: int, **more: Any) -> RunSettings:
    return RunSettings(
        scenario=scenario,
        mode="PerformanceOnly",
        batch_size=batch_size,
        dataset_size=IMAGES,
        buffer_size=IMAGES,
        **more,
    )


def measure_copy(kind: str) -> dict[str, Any]:
    """The copy path under LoadGen's Offline scenario."""
    settings = make_settings("Offline", COPY_BATCH, count_override=COPY_SAMPLES, target_qps=1)
    with {"sorted": CopyOnly, "shuffled": Shuffled}[kind]() as engine:
        return run_loadgen(engine, settings) | {"samples": COPY_SAMPLES}


def time_resident(engine: OnnxRuntimeCuda, batch: int, seconds: float) -> float:
    """Samples per second of the session on a batch resident on the device, run back to back."""
    (slot, *_), size = engine._slots, batch
    with engine._gpu as gpu:
        engine._start(slot, size)
        gpu.synchronize()
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            for _ in range(8):
                engine._start(slot, size)
            slot.compute_stream.synchronize()
            count += 8
        return count * batch / (time.perf_counter() - start)


def time_calls(engine: OnnxRuntimeCuda, seconds: float) -> float:
    """Median of a bare call of the session on one resident sample, answer awaited, in ns."""
    slot, latencies = engine._slots[0], []
    with engine._gpu:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter_ns()
            engine._start(slot, 1)
            slot.compute_stream.synchronize()
            latencies.append(time.perf_counter_ns() - start)
    return statistics.median(latencies)


def open_engine(model: str) -> OnnxRuntimeCuda:
    return OnnxRuntimeCuda(Path(model), load_model_recipe(Path(model)))


def measure_offline(model: str, batch_size: str) -> dict[str, Any]:
    batch = int(batch_size)
    with open_engine(model) as engine:
        engine.prepare([batch])
        before = time_resident(engine, batch, 3)
        samples = round(before * 8 / batch) * batch
        settings = make_settings("Offline", batch, count_override=samples, target_qps=1)
        figures = run_loadgen(engine, settings)
        after = time_resident(engine, batch, 3)
    return figures | {"resident": [before, after], "samples": samples}


def measure_single_stream(model: str) -> dict[str, Any]:
    with open_engine(model) as engine:
        engine.prepare([1])
        before = time_calls(engine, 2)
        latency_ms = before / 1e6
        settings = make_settings(
            "SingleStream", 1, count_override=8000, target_latency_ms=latency_ms
        )
        figures = run_loadgen(engine, settings)
        after = time_calls(engine, 2)
    return figures | {"bare_ns": [before, after]}


def measure_server(model: str, batch: str, qps: str, seconds: str) -> dict[str, Any]:
    settings = make_settings(
        "Server", int(batch), duration_s=float(seconds), count_override=1, target_qps=float(qps)
    )
    with open_engine(model) as engine:
        return run_loadgen(engine, settings)


def run_child(*arguments: str) -> dict[str, Any]:
    """One measurement in a process of its own: LoadGen runs one test a process."""
    command = [sys.executable, __file__, "--child", *arguments]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed")
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


MEASUREMENTS: dict[str, Callable[..., dict[str, Any]]] = {
    "ways": measure_ways,
    "copy": measure_copy,
    "offline": measure_offline,
    "single": measure_single_stream,
    "server": measure_server,
}


def find_server_qps(model: Path, batch: int, offline: float, seconds: float) -> float:
    """The largest share of the Offline rate that was VALID as a target, in steps; 0: none."""
    share, best, failed = LEAST_SERVER_SHARE, 0.0, 2.0
    while 0.5 <= share < min(1.0, failed) and share not in (best, failed):
        figures = run_child("server", str(model), str(batch), str(share * offline), str(seconds))
        print(
            f"  Server at {share:.3f} of Offline, {share * offline:,.0f} queries/s, {seconds:g} s: "
            f"{'VALID' if figures['valid'] else 'INVALID'}, p99 {figures['p99_ns'] / 1e6:.2f} ms, "
            f"{figures['result_completed_samples_per_sec']:,.0f} completed/s",
            flush=True,
        )
        if figures["valid"]:
            best = share
            share = round(share + SERVER_STEP, 3)
        else:
            failed = share
            share = round(share - SERVER_STEP, 3)
            if share <= best:
                break
    return best


def print_ways(ways: dict[str, dict[str, float]]) -> None:
    print("| way, thousands of samples/s at batch | " + " | ".join(map(str, BATCHES)) + " |")
    print("|---" * (len(BATCHES) + 1) + "|")
    for name, rates in ways.items():
        cells = " | ".join(f"{rates[str(batch)] / 1e3:.0f}" for batch in BATCHES)
        print(f"| {name} | {cells} |")


def convert_model(folder: Path) -> Path:
    """ResNet-50 with random weights in fp16, with uint8 input and the class as output."""
    source, model = folder / "resnet50_random.onnx", folder / "fp16.onnx"
    convert = ["-m", "ck_mlperf.models.convert", "--precision", "fp16"]
    for command in ([MAKE_MODEL, folder], [*convert, "--source", source, "--output", model]):
        subprocess.run(
            [sys.executable, *command], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL
        )
    return model


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-gpu", description=__doc__)
    parser.add_argument("--model", type=Path, help="converted model (default: ResNet-50, fp16)")
    parser.add_argument("--batch", type=int, default=256, help="for Offline (default: 256)")
    parser.add_argument("--server-batch", type=int, default=64, help="at most (default: 64)")
    parser.add_argument("--server-seconds", type=float, default=12, help="each (default: 12)")
    parser.add_argument("--copy-only", action="store_true", help="leave the network out")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, *values = arguments.child
        print(json.dumps(MEASUREMENTS[name](*values)))
        return 0

    ways = run_child("ways")
    link = ways["link"]
    print(f"{ways['device']}; a sample is {SAMPLE_BYTES} bytes, uint8 {SAMPLE_SHAPE}\n")
    print_ways(ways["ways"])
    print(f"\nthe link: {link:,.0f} samples/s, {link * SAMPLE_BYTES / 1e9:.1f} GB/s\n", flush=True)
    verdicts = []
    for kind in ("sorted", "shuffled"):
        figures = run_child("copy", kind)
        rate = figures["result_samples_per_second"]
        cpu_us = figures["cpu_s"] / figures["samples"] * 1e6
        print(f"copies alone, Offline, {kind}, batch {COPY_BATCH}: {cpu_us:.2f} us of CPU a sample")
        what = f"copies alone, {kind} samples"
        verdicts += [
            judge(f"{what}, samples/s", rate, LEAST_COPY_SAMPLES_PER_S, ",.0f"),
            judge(f"{what}, share of the link", rate / link, LEAST_COPY_SHARE, ".3f"),
        ]
    if not arguments.copy_only:
        with tempfile.TemporaryDirectory() as folder:
            model = arguments.model or convert_model(Path(folder))
            verdicts += measure_network(model, arguments)
    return 0 if all(verdicts) else 1


def measure_network(model: Path, arguments: argparse.Namespace) -> list[bool]:
    figures = run_child("offline", str(model), str(arguments.batch))
    offline = figures["result_samples_per_second"]
    resident = statistics.mean(figures["resident"])
    cpu_us = figures["cpu_s"] / figures["samples"] * 1e6
    alone = ", ".join(f"{rate:,.0f}" for rate in figures["resident"])
    print(
        f"\n{model.name}, ONNX Runtime CUDA, Offline, batch {arguments.batch}: {offline:,.0f} "
        f"samples/s; the session alone, resident: {alone}; "
        f"{cpu_us:.1f} us of CPU a sample: one process could feed "
        f"{1e6 / (cpu_us * offline):.1f} such GPUs at this rate",
        flush=True,
    )
    what = "Offline over the resident session"
    verdicts = [judge(what, offline / resident, LEAST_OFFLINE_RATIO, ".4f")]
    figures = run_child("single", str(model))
    p50_ns = figures["result_50.00_percentile_latency_ns"]
    over_ns = p50_ns - statistics.mean(figures["bare_ns"])
    verdicts.append(over_ns <= MOST_SINGLE_STREAM_NS)
    bound = f"at most {MOST_SINGLE_STREAM_NS / 1e3:g} us"
    what = "SingleStream, p50 over the bare call"
    print_verdict(verdicts[-1], what, f"{over_ns / 1e3:.1f} us", bound)
    bare = ", ".join(f"{value / 1e3:.1f}" for value in figures["bare_ns"])
    print(f"  p50 {p50_ns / 1e3:.1f} us; the bare call {bare} us")
    share = find_server_qps(model, arguments.server_batch, offline, arguments.server_seconds)
    what = "Server, largest VALID share of Offline"
    return [*verdicts, judge(what, share, LEAST_SERVER_SHARE, ".3f")]


if __name__ == "__main__":
    sys.exit(main())
