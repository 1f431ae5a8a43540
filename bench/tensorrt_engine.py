"""The harness against the plan alone, on an NVIDIA GPU with TensorRT.

`make bench-tensorrt`. Each line is one plan and one scenario. "Alone" is the plan with nothing around
it: real images, or random ones, resident and prepared on the device, a CUDA graph a batch, the best
of one to three streams, before and after the test in the same process. Exits 1 where the harness
gives too small a share of it; and where it gives more than all of it, for then the bench is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from imagenet_helper.preprocess import load_preprocessed
from loadgen_helper.engines import Engine, make_engine
from loadgen_helper.engines.cuda import Graph
from loadgen_helper.engines.tensorrt import TensorRt
from loadgen_helper.native import choose_interface
from loadgen_helper.run import run_test
from loadgen_helper.settings import RunSettings

ROOT = Path(__file__).resolve().parent.parent
MAKE_MODEL = ROOT / "package" / "model-onnx-resnet50" / "make_resnet50.py"
IMAGES = 1024
SIDE = 224
MOST_STREAMS = 3
LEAST_OFFLINE_RATIO = 0.98
LEAST_SERVER_RATIO = 0.95
# What two measurements of the same thing differ by on a quiet machine.
NOISE = 1.01
DEFAULT_PLANS = ("int8:256", "int8:2048", "int8:32", "fp16:256", "fp16:2048", "fp16:32")
SERVER_STEP = 0.02


def make_images(folder: Path | None) -> np.ndarray:
    """uint8 [1024, 224, 224, 3]: those of a preprocessed set, repeated, or random ones."""
    if folder is None:
        return np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)
    images = load_preprocessed(folder).images
    return np.ascontiguousarray(images[np.arange(IMAGES) % len(images)])


def open_engines(plan: Path, gpus: int, slots: int) -> list[TensorRt]:
    engines = []
    if slots:
        TensorRt.depth = slots
    TensorRt.at_once = int(os.environ.get("LAB_AT_ONCE", TensorRt.at_once))
    import loadgen_helper.engines.prepare as prepare
    prepare._BLOCKS = int(os.environ.get("LAB_BLOCKS", prepare._BLOCKS))
    prepare._BLOCKS_OF_SMALL = int(os.environ.get("LAB_SMALL", prepare._BLOCKS_OF_SMALL))
    for device in range(gpus):
        engine = make_engine("tensorrt", plan, device=device)
        assert isinstance(engine, TensorRt)
        engine.open()
        engines.append(engine)
    return engines


def load_alone(engine: TensorRt, images: np.ndarray, batch: int) -> None:
    """Put prepared images into the network's input of every slot."""
    engine.prepare([batch])
    engine.load(images[: min(batch, len(images))])
    rows = [row % len(images) for row in range(batch)]
    for _ in range(engine.depth):
        engine.enqueue(rows)
    for _ in range(engine.depth):
        engine.collect()


def time_alone(
    engine: TensorRt, images: np.ndarray, batch: int, seconds: float
) -> dict[int, float]:
    """Samples per second of the plan alone, by the number of streams."""
    load_alone(engine, images, batch)
    rates = {}
    with engine._gpu:
        slots = engine._slots[:MOST_STREAMS]
        graphs = [Graph(slot.compute_stream, _run_network(engine, slot)) for slot in slots]
        for streams in range(1, len(slots) + 1):
            chosen = list(zip(slots[:streams], graphs, strict=False))
            for _, graph in chosen:
                graph.launch()
            engine._gpu.synchronize()
            batches, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds:
                for slot, graph in chosen:
                    # Two batches a stream are under way: the GPU never waits for this loop.
                    slot.done_asleep.synchronize()
                    slot.done_asleep.record(slot.compute_stream)
                    graph.launch()
                    batches += 1
            engine._gpu.synchronize()
            rates[streams] = batches * batch / (time.perf_counter() - start)
        for graph in graphs:
            graph.free()
    engine.unload()
    return rates


def _run_network(engine: TensorRt, slot: Any) -> Any:
    return lambda: engine._flavour.execute(engine._contexts[id(slot)], slot.compute_stream.handle)


def time_latency(engine: TensorRt, images: np.ndarray, batch: int, seconds: float) -> list[float]:
    """Median, 90th and 99th percentile of one batch of the plan alone, awaited, in ms."""
    load_alone(engine, images, batch)
    latencies = []
    with engine._gpu:
        slot = engine._slots[0]
        graph = Graph(slot.compute_stream, _run_network(engine, slot))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            graph.launch()
            slot.done.record(slot.compute_stream)
            slot.done.synchronize()
            latencies.append((time.perf_counter() - start) * 1e3)
        graph.free()
    engine.unload()
    return [float(np.percentile(latencies, share)) for share in (50, 90, 99)]


def run_loadgen(
    engines: Sequence[Engine], images: np.ndarray, settings: RunSettings, native: Path | None
) -> dict[str, Any]:
    interface, _ = choose_interface(native)
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_test(settings, list(engines), images, Path(folder), interface)
        keys = ["result_validity", *RESULT_KEYS[settings.scenario]]
        figures = {key: read_detail(Path(folder), key) for key in keys}
        conditions = outcome.conditions
    return figures | {"gpus": conditions.get("gpus"), "wall_s": outcome.wall_s}


def read_detail(folder: Path, key: str) -> Any:
    """A figure or a word of LoadGen's detail log."""
    for line in (folder / "mlperf_log_detail.txt").read_text().splitlines():
        record = json.loads(line.removeprefix(":::MLLOG "))
        if record["key"] == key:
            return record["value"]
    raise KeyError(key)


RESULT_KEYS = {
    "Offline": ["result_samples_per_second"],
    "SingleStream": ["result_90.00_percentile_latency_ns", "result_50.00_percentile_latency_ns"],
    "MultiStream": ["result_99.00_percentile_latency_ns", "result_50.00_percentile_latency_ns"],
    "Server": ["result_completed_samples_per_sec", "result_99.00_percentile_latency_ns"],
}


def serve_child(
    scenario: str, plan: Path, batch: int, arguments: argparse.Namespace, rate: float
) -> dict[str, Any]:
    """One test in this process, and the plan alone before and after it."""
    images, seconds = make_images(arguments.images), arguments.seconds
    engines = open_engines(plan, arguments.gpus, arguments.slots)
    common: dict[str, Any] = {
        "scenario": scenario,
        "mode": "PerformanceOnly",
        "batch_size": batch,
        "dataset_size": len(images),
        "buffer_size": len(images),
    }
    try:
        if scenario == "Offline":
            before = [time_alone(engine, images, batch, 2) for engine in engines]
            expected = sum(max(rates.values()) for rates in before)
            count = round(expected * seconds / batch) * batch
            settings = RunSettings(**common, count_override=count, target_qps=expected)
            figures = run_loadgen(engines, images, settings, arguments.native)
            after = [time_alone(engine, images, batch, 2) for engine in engines]
            return figures | {"alone": [before, after]}
        if scenario == "Server":
            settings = RunSettings(**common, duration_s=seconds, count_override=1, target_qps=rate)
            return run_loadgen(engines, images, settings, arguments.native)
        size = 1 if scenario == "SingleStream" else batch
        before = time_latency(engines[0], images, size, 2)
        settings = RunSettings(
            **(common | {"batch_size": size}),
            multistreamness=None if size == 1 else size,
            count_override=max(1000, int(seconds * 1e3 / before[0])),
            target_latency_ms=before[0],
        )
        figures = run_loadgen(engines, images, settings, arguments.native)
        return figures | {"alone": [before, time_latency(engines[0], images, size, 2)]}
    finally:
        for engine in engines:
            engine.close()


def run_child(
    arguments: argparse.Namespace, scenario: str, plan: Path, batch: int, rate: float = 0
) -> dict[str, Any]:
    """One measurement in a process of its own: LoadGen runs one test a process."""
    command = [sys.executable, __file__, "--child", scenario, plan, batch, rate]
    command += ["--gpus", arguments.gpus, "--seconds", arguments.seconds]
    command += ["--slots", arguments.slots]
    if arguments.native:
        command += ["--native", arguments.native]
    if arguments.images:
        command += ["--images", arguments.images]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    process = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, text=True, env=environment
    )
    if process.returncode:
        raise SystemExit(f"{scenario}, batch {batch} of {plan} failed")
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


def best_alone(alone: list[list[dict[str, float]]]) -> tuple[float, str]:
    """The plan alone on all GPUs, in samples/s: the best number of streams, before and after."""
    before, after = alone
    rates = {
        streams: sum(
            (first[streams] + last[streams]) / 2 for first, last in zip(before, after, strict=True)
        )
        for streams in before[0]
    }
    best = max(rates, key=rates.__getitem__)
    return rates[best], best


def build(model: Path, output: Path, precision: str, batch: int, options: Sequence[str]) -> Path:
    """The plan of a converted model, built or reused. Returns its path."""
    command = [sys.executable, "-m", "tensorrt_helper.build", "--flavour", "tensorrt"]
    command += ["--model", str(model), "--output", str(output), "--precision", precision]
    command += ["--max-batch", str(batch), *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    subprocess.run(command, check=True, env=environment)
    return output


def convert(source: Path, folder: Path, precision: str, calibration: Path | None) -> Path:
    model = folder / f"{source.stem}-{precision}.onnx"
    if not model.exists():
        command = [sys.executable, "-m", "imagenet_helper.convert", "--source", str(source)]
        command += ["--output", str(model), "--precision", precision, "--input", "native"]
        if precision == "int8":
            command += ["--calibration", str(calibration)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
        subprocess.run(command, check=True, env=environment)
    return model


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-tensorrt", description=__doc__)
    parser.add_argument("--model", type=Path, help="ONNX file with its recipe")
    parser.add_argument("--calibration", type=Path, help="preprocessed images, for int8")
    parser.add_argument("--images", type=Path, help="preprocessed images (default: random ones)")
    parser.add_argument("--plans", nargs="+", default=DEFAULT_PLANS, metavar="PRECISION:BATCH")
    parser.add_argument("--input", default="uint8", help="what samples are (default: uint8)")
    parser.add_argument("--scenarios", nargs="+", default=["Offline"])
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--native", type=Path, help="library of package:lib-loadgen-native")
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--slots", type=int, default=0, help="batches under way (default: 3)")
    parser.add_argument("--seconds", type=float, default=8, help="each test (default: 8)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".ck" / "bench")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        scenario, plan, batch, rate = arguments.child
        result = serve_child(scenario, Path(plan), int(batch), arguments, float(rate))
        print(json.dumps(result))
        return 0
    for text in arguments.plans:
        precision, _, size = text.partition(":")
        batch = int(size)
        model = convert(arguments.model, arguments.folder, precision, arguments.calibration)
        output = arguments.folder / f"{model.stem}-{arguments.input}-{batch}.plan"
        plan = build(model, output, precision, batch, ["--input", arguments.input])
        rate = arguments.rate
        for scenario in arguments.scenarios:
            if scenario == "Server":
                for share in (0.90, 0.93, 0.95, 0.97, 0.99):
                    figures = run_child(arguments, scenario, plan, batch, share * rate)
                    print(f"{text} Server {share} of {rate:,.0f} = {share * rate:,.0f}: {figures['result_validity']} {figures['result_completed_samples_per_sec']:,.0f}/s p99 {figures['result_99.00_percentile_latency_ns'] / 1e6:.2f} ms", flush=True)
                    if figures["result_validity"] != "VALID":
                        break
                continue
            figures = run_child(arguments, scenario, plan, batch)
            if scenario == "Offline":
                alone, streams = best_alone(figures["alone"])
                rate = figures["result_samples_per_second"]
                print(f"{text} {arguments.input} Offline: {rate:,.0f} samples/s; alone {alone:,.0f} ({streams} streams) ratio {rate / alone:.4f}; {figures['alone']}", flush=True)
            else:
                figures.pop("gpus")
                print(f"{text} {arguments.input} {scenario}: {figures}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
