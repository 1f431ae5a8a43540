"""What the GPU path costs: the copies into the device, ONNX Runtime's CUDA engine under LoadGen.

`make bench-gpu`, on a machine with an NVIDIA GPU, pycuda and onnxruntime-gpu. Each figure is a
ratio of two things measured in this run. Exits 1 where one falls short.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import judge, read_result

from ck_mlperf.loadgen.engines.cuda import Gpu, PinnedArray, PinnedSamples
from ck_mlperf.loadgen.engines.cuda_engine import CudaEngine, Slot
from ck_mlperf.loadgen.engines.onnxruntime_cuda import OnnxRuntimeCuda
from ck_mlperf.loadgen.one_test import run_test
from ck_mlperf.loadgen.settings import RunSettings
from ck_mlperf.models.recipe import ModelRecipe, load_model_recipe

ROOT = Path(__file__).resolve().parent.parent
SRC = str(ROOT / "src")
MAKE_MODEL = ROOT / "package" / "model-onnx-resnet50" / "make_resnet50.py"
SIDE = 224
SAMPLE_SHAPE = (SIDE, SIDE, 3)
SAMPLE_BYTES = SIDE * SIDE * 3
IMAGES = 1024
COPY_BATCH = 512
COPY_SAMPLES = 3_000_000
BATCHES = (1, 2, 4, 8, 32, 128, 512)
STREAMS = 3
GATHER_SOURCE = Path(__file__).with_name("gather.cu")
GATHER_BLOCKS, GATHER_THREADS = (8, 1), (512, 1, 1)  # more blocks make no difference

LEAST_COPY_SAMPLES_PER_S = 300_000
LEAST_COPY_SHARE = 0.85
LEAST_OFFLINE_RATIO = 0.98
MOST_SINGLE_STREAM_NS = 30_000
LEAST_SERVER_SHARE = 0.85
SERVER_STEP = 0.025

UINT8_RECIPE = {
    "format": 1,
    "name": "null",
    "dataset": "imagenet",
    "input": {"name": "images", "layout": "NHWC", "dtype": "uint8"},
    "image": {
        "side": SIDE,
        "crop": 0.875,
        "interpolation": "area",
        "channels": "rgb",
        "aspect": "keep",
    },
    "mean": [0, 0, 0],
    "scale": [1, 1, 1],
    "output": {"name": "class", "kind": "class"},
    "classes": 1000,
    "labels_offset": 0,
    "max_batch": None,
    "weights": "random",
}


class CopyOnly(CudaEngine):
    """Takes batches to the device and answers 0: nothing is computed."""

    name = "copy-only"
    version = "1"

    def __init__(self) -> None:
        super().__init__(Path("none"), ModelRecipe.from_dict(UINT8_RECIPE), 0)

    def _open_model(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return (), np.dtype(np.int32)

    def _make_streams(self) -> list[tuple[Any, Any]]:
        streams = [self._gpu.cuda.Stream() for _ in range(self.depth)]
        return [(stream, stream) for stream in streams]

    def _prepare_size(self, slot: Slot, size: int) -> None:
        self._gpu.cuda.memset_d32(slot.output, 0, size)

    def _start(self, slot: Slot, size: int) -> None:
        pass


class Shuffled(CopyOnly):
    """The same for a test that asks for samples in no order: no two lie side by side."""

    def enqueue(self, rows: Sequence[int]) -> None:
        order = self._order[: len(rows)]
        super().enqueue(order)

    def load(self, images: np.ndarray) -> None:
        self._order = tuple(np.random.default_rng(0).permutation(len(images)).tolist())
        super().load(images)


def time_copies(
    copy: Callable[[int, int], None], batch: int, streams: list[Any], cuda: Any
) -> float:
    """Samples per second of copy(slot, number) calls that take turns on the streams."""
    events = [cuda.Event(cuda.event_flags.DISABLE_TIMING) for _ in streams]
    count = max(12, min(2000, 12_000 // batch))
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        for number in range(count):
            slot = number % len(streams)
            if number >= len(streams):
                events[slot].synchronize()
            copy(slot, number)
            events[slot].record(streams[slot])
        for event in events:
            event.synchronize()
        rates.append(count * batch / (time.perf_counter() - start))
    return max(rates)


def measure_ways() -> dict[str, Any]:
    """Samples per second into the device, by way and batch; the link's limit in bytes/s."""
    rng = np.random.default_rng(0)
    gpu = Gpu(0)
    cuda = gpu.cuda
    ways: dict[str, dict[int, float]] = {}
    with gpu:
        streams = [cuda.Stream() for _ in range(STREAMS)]
        gather = compile_gather()
        samples = PinnedSamples(cuda, IMAGES, SAMPLE_SHAPE, np.dtype(np.uint8))
        samples.array[:] = rng.integers(0, 256, samples.array.shape, np.uint8)
        largest = max(BATCHES)
        targets = [cuda.mem_alloc(largest * SAMPLE_BYTES) for _ in streams]
        staged = [PinnedArray(cuda, (largest, *SAMPLE_SHAPE), np.dtype(np.uint8)) for _ in streams]
        picked = [PinnedArray(cuda, (largest,), np.dtype(np.int32)) for _ in streams]
        places = [samples.place(int(target), largest) for target in targets]
        for batch in BATCHES:
            rows = [tuple(rng.integers(0, IMAGES, batch).tolist()) for _ in range(64)]

            def one(slot: int, number: int, batch: int = batch) -> None:
                cuda.memcpy_htod_async(int(targets[slot]), samples.array[:batch], streams[slot])

            def each(slot: int, number: int, rows: list[Any] = rows) -> None:
                samples.copy_each(rows[number % 64], places[slot], streams[slot])

            def batched(slot: int, number: int, rows: list[Any] = rows) -> None:
                samples.copy_batched(rows[number % 64], places[slot], streams[slot])

            def kernel(slot: int, number: int, rows: list[Any] = rows, batch: int = batch) -> None:
                picked[slot].array[:batch] = rows[number % 64]
                gather(
                    streams[slot], samples.address, picked[slot].address, int(targets[slot]), batch
                )

            def host(slot: int, number: int, rows: list[Any] = rows, batch: int = batch) -> None:
                target = staged[slot].array[:batch]
                np.take(samples.array, rows[number % 64], axis=0, out=target, mode="clip")
                cuda.memcpy_htod_async(int(targets[slot]), target, streams[slot])

            for name, way in (
                ("one contiguous copy", one),
                ("a copy per sample", each),
                ("a batched copy", batched),
                ("a gather on the host", host),
                ("the gather kernel", kernel),
            ):
                ways.setdefault(name, {})[batch] = time_copies(way, batch, streams, cuda)
        kernel(0, 0)
        got = np.empty((largest, *SAMPLE_SHAPE), np.uint8)
        streams[0].synchronize()
        cuda.memcpy_dtoh(got, targets[0])
        assert (got == samples.array[list(rows[0])]).all()
        link = ways["one contiguous copy"][largest]
    return {"ways": ways, "link": link, "device": gpu.name}


def compile_gather() -> Callable[[Any, int, int, int, int], None]:
    """gather(stream, store address, row list address, batch address, count) of gather.cu."""
    from pycuda.compiler import SourceModule

    kernel = SourceModule(GATHER_SOURCE.read_text(), no_extern_c=True).get_function("gather")
    kernel.prepare("PPPII")
    row_vectors = SAMPLE_BYTES // 16

    def gather(stream: Any, store: int, rows: int, batch: int, count: int) -> None:
        kernel.prepared_async_call(
            *(GATHER_BLOCKS, GATHER_THREADS, stream),
            *(store, rows, batch, row_vectors, count * row_vectors),
        )

    return gather


def make_images(count: int = IMAGES) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SAMPLE_SHAPE), np.uint8)


def run_loadgen(engine: CudaEngine, settings: RunSettings) -> dict[str, Any]:
    """One test on an open engine: LoadGen's figures, and the processor's time for it."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_SELF)
        outcome = run_test(settings, engine, make_images(), Path(folder))
        after = resource.getrusage(resource.RUSAGE_SELF)
        figures: dict[str, Any] = {"wall_s": outcome.wall_s}
        for key in RESULT_KEYS[settings.scenario]:
            figures[key] = read_result(Path(folder), key)
        summary = (Path(folder) / "mlperf_log_summary.txt").read_text()
        figures["valid"] = "Result is : VALID" in summary
        p99 = re.search(r"99\.00 percentile latency \(ns\)\s*:\s*(\d+)", summary)
        figures["p99_ns"] = p99 and int(p99.group(1))
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures["cpu_s"] = used
    return figures


RESULT_KEYS = {
    "Offline": ["result_samples_per_second"],
    "SingleStream": ["result_50.00_percentile_latency_ns"],
    "Server": ["result_completed_samples_per_sec"],
}


def measure_copy(kind: str) -> dict[str, Any]:
    """The copy path under LoadGen's Offline scenario."""
    settings = RunSettings(
        scenario="Offline",
        mode="PerformanceOnly",
        batch_size=COPY_BATCH,
        dataset_size=IMAGES,
        buffer_size=IMAGES,
        count_override=COPY_SAMPLES,
        target_qps=1,
    )
    with {"sorted": CopyOnly, "shuffled": Shuffled}[kind]() as engine:
        return run_loadgen(engine, settings) | {"samples": COPY_SAMPLES}


def time_resident(engine: OnnxRuntimeCuda, batch: int, seconds: float) -> float:
    """Samples per second of the session on a batch that lies on the device, run back to back."""
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


def measure_offline(model: Path, batch: int) -> dict[str, Any]:
    with OnnxRuntimeCuda(model, load_model_recipe(model)) as engine:
        engine.prepare([batch])
        before = time_resident(engine, batch, 3)
        samples = round(before * 8 / batch) * batch
        settings = RunSettings(
            scenario="Offline",
            mode="PerformanceOnly",
            batch_size=batch,
            dataset_size=IMAGES,
            buffer_size=IMAGES,
            count_override=samples,
            target_qps=1,
        )
        figures = run_loadgen(engine, settings)
        after = time_resident(engine, batch, 3)
    return figures | {"resident": [before, after], "samples": samples}


def measure_single_stream(model: Path) -> dict[str, Any]:
    with OnnxRuntimeCuda(model, load_model_recipe(model)) as engine:
        engine.prepare([1])
        before = time_calls(engine, 2)
        settings = RunSettings(
            scenario="SingleStream",
            mode="PerformanceOnly",
            batch_size=1,
            dataset_size=IMAGES,
            buffer_size=IMAGES,
            count_override=8000,
            target_latency_ms=before / 1e6,
        )
        figures = run_loadgen(engine, settings)
        after = time_calls(engine, 2)
    return figures | {"bare_ns": [before, after]}


def measure_server(model: Path, batch: int, qps: float, seconds: float) -> dict[str, Any]:
    settings = RunSettings(
        scenario="Server",
        mode="PerformanceOnly",
        batch_size=batch,
        dataset_size=IMAGES,
        buffer_size=IMAGES,
        duration_s=seconds,
        count_override=1,
        target_qps=qps,
    )
    with OnnxRuntimeCuda(model, load_model_recipe(model)) as engine:
        return run_loadgen(engine, settings)


def run_child(*arguments: str) -> dict[str, Any]:
    """One measurement in a process of its own: LoadGen runs one test a process."""
    command = [sys.executable, __file__, "--child", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed")
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


def serve_child(name: str, *values: str) -> dict[str, Any]:
    if name == "ways":
        return measure_ways()
    if name == "copy":
        return measure_copy(values[0])
    model = Path(values[0])
    if name == "offline":
        return measure_offline(model, int(values[1]))
    if name == "single":
        return measure_single_stream(model)
    assert name == "server"
    return measure_server(model, int(values[1]), float(values[2]), float(values[3]))


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
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    subprocess.run(
        [sys.executable, MAKE_MODEL, folder], check=True, env=environment, stdout=subprocess.DEVNULL
    )
    model = folder / "fp16.onnx"
    subprocess.run(
        [
            *(sys.executable, "-m", "ck_mlperf.models.convert", "--precision", "fp16"),
            *("--source", folder / "resnet50_random.onnx", "--output", model),
        ],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
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
        print(json.dumps(serve_child(*arguments.child)))
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
        verdicts += [
            judge(
                f"copies alone, {kind} samples",
                f"{rate:,.0f} samples/s",
                f"at least {LEAST_COPY_SAMPLES_PER_S:,}",
                rate >= LEAST_COPY_SAMPLES_PER_S,
            ),
            judge(
                f"copies alone, {kind} samples, share of the link",
                f"{rate / link:.3f}",
                f"at least {LEAST_COPY_SHARE}",
                rate / link >= LEAST_COPY_SHARE,
            ),
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
    verdicts = [
        judge(
            "Offline over the resident session",
            f"{offline / resident:.4f}",
            f"at least {LEAST_OFFLINE_RATIO}",
            offline / resident >= LEAST_OFFLINE_RATIO,
        )
    ]
    figures = run_child("single", str(model))
    over = figures["result_50.00_percentile_latency_ns"] - statistics.mean(figures["bare_ns"])
    verdicts.append(
        judge(
            "SingleStream, p50 over the bare call",
            f"{over / 1e3:.1f} us",
            f"at most {MOST_SINGLE_STREAM_NS / 1e3:g} us",
            over <= MOST_SINGLE_STREAM_NS,
        )
    )
    print(
        f"  p50 {figures['result_50.00_percentile_latency_ns'] / 1e3:.1f} us; the bare call "
        f"{', '.join(f'{value / 1e3:.1f}' for value in figures['bare_ns'])} us"
    )
    share = find_server_qps(model, arguments.server_batch, offline, arguments.server_seconds)
    verdicts.append(
        judge(
            "Server, largest VALID share of Offline",
            f"{share:.3f}",
            f"at least {LEAST_SERVER_SHARE}",
            share >= LEAST_SERVER_SHARE,
        )
    )
    return verdicts


if __name__ == "__main__":
    sys.exit(main())
