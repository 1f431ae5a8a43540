"""Runs as a large sweep would record them, without running anything.

The figures follow a simple model: throughput rises with the batch towards the engine's maximum, and
a queue's latency rises without bound as the arrival rate approaches it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import product
from typing import Any

from ck_mlperf.analyze.runs import Run

PRECISIONS = {"fp32": (1000.0, 76.46), "fp16": (2400.0, 76.44), "int8": (4100.0, 76.02)}
ENGINES = {"onnxruntime-cuda": 0.7, "tensorrt": 1.0}
MODELS = {"resnet50": 1.0, "mobilenet": 3.1}
NORMAL = {0.5: 0.0, 0.9: 1.28, 0.95: 1.64, 0.97: 1.88, 0.99: 2.33, 0.999: 3.09}


def make_run(**columns: Any) -> Run:
    """A run of the embedded default, but for `columns`."""
    run: dict[str, Any] = {
        "experiment": "sweep",
        "file": "ckp-0123456789abcdef.0001.json",
        "repetition": 0,
        "run_id": None,
        "point": None,
        "number": None,
        "explore_run": None,
        "start": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        "error": None,
        "program": "image-classification-tensorrt-loadgen-py",
        "scenario": "Offline",
        "mode": "PerformanceOnly",
        "compliance": None,
        "engine": "onnxruntime-cpu",
        "engine_version": "1.20.0",
        "device": "CPU",
        "devices": 1,
        "model": "digits",
        "weights": "trained",
        "precision": "fp32",
        "model_sha256": "0" * 64,
        "dataset": "digits",
        "images": 500,
        "batch": 8,
        "samples_per_query": 8,
        "target_qps": None,
        "settings": None,
        "cpu": "A CPU",
        "cores": 16,
        "gpu": None,
        "driver": None,
        "loadgen_valid": True,
        "invalid_reason": None,
        "rules": "edge",
        "rules_met": False,
        "unofficial": "the network of digits is not ResNet-50 v1.5",
        "not_closed": None,
        "worst_check": "duration",
        "worst_margin": -0.98,
        "latency_bound_ms": None,
        "samples_per_second": 1000.0,
        "queries_per_second": 125.0,
        "peak_qps": None,
        "queries": 10_000,
        "samples": 80_000,
        "latency_min_ns": 1e6,
        "latency_mean_ns": 2.2e6,
        "latency_p50_ns": 2e6,
        "latency_p90_ns": 3e6,
        "latency_p95_ns": 3.5e6,
        "latency_p97_ns": 4e6,
        "latency_p99_ns": 5e6,
        "latency_p99_9_ns": 8e6,
        "latency_max_ns": 9e6,
        "early_stopped_p90_ns": None,
        "early_stopped_p99_ns": None,
        "top1_percent": None,
        "top5_percent": None,
        "performance_s": 10.0,
        "wall_s": 12.0,
        "sm_clock_mhz": None,
        "temperature_c": None,
        "loadgen_version": "6.0.17",
        "commit": "0123456789ab",
        "disturbances": (),
        "disturbance_kinds": (),
        "command": "ck benchmark program:image-classification-tensorrt-loadgen-py",
    }
    assert columns.keys() <= run.keys()
    return Run(**{**run, **columns})


def make_runs(points: int, repetitions: int = 3, seed: int = 0) -> list[Run]:
    """Runs of about `points` points in Offline and Server, with those of the networks' accuracy."""
    networks = list(product(MODELS, ENGINES, PRECISIONS))
    loads = max(1, round(points / len(networks) / 2))
    generator = random.Random(seed)
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    runs: list[Run] = []
    for network in networks:
        runs.append(_make_accuracy_run(*network, start))
        for place in range(loads):
            share = place / max(1, loads - 1)
            for scenario in ("Offline", "Server"):
                for repetition in range(repetitions):
                    start += timedelta(seconds=75)
                    columns = _measure(scenario, network, share, generator)
                    runs.append(make_run(start=start, repetition=repetition, **columns))
    return runs


def _describe_network(model: str, engine: str, precision: str) -> dict[str, Any]:
    return {
        "engine": engine,
        "engine_version": "10.13.3" if engine == "tensorrt" else "1.23.0",
        "device": "NVIDIA H100",
        "gpu": "NVIDIA H100",
        "model": model,
        "precision": precision,
        "model_sha256": (model + engine + precision).encode().hex()[:64].ljust(64, "0"),
        "dataset": "imagenet",
        "images": 500,
    }


def _make_accuracy_run(model: str, engine: str, precision: str, start: datetime) -> Run:
    measured = ("latency_", "_per_second", "queries", "samples")
    nothing = {name: None for name in Run.__annotations__ if any(part in name for part in measured)}
    return make_run(
        **{
            **nothing,
            **_describe_network(model, engine, precision),
            "start": start,
            "mode": "AccuracyOnly",
            "loadgen_valid": None,
            "top1_percent": PRECISIONS[precision][1] - (5.3 if model == "mobilenet" else 0),
        }
    )


def _measure(
    scenario: str, network: tuple[str, str, str], share: float, generator: random.Random
) -> dict[str, Any]:
    model, engine, precision = network
    most = PRECISIONS[precision][0] * ENGINES[engine] * MODELS[model]
    noise = generator.gauss(1, 0.015)
    is_server = scenario == "Server"
    batch = 32 if is_server else max(1, round(2 ** (share * 8)))
    rate = most * noise * batch / (batch + 6)
    target_qps = round(most * (0.1 + 0.95 * share), 1) if is_server else None
    median_ms = 1000 * batch / rate
    if target_qps is not None:
        load = target_qps / rate
        median_ms = median_ms / (1 - load) ** 0.5 if load < 0.99 else 400 * load
        rate = min(rate, target_qps)
    latency_ns = {q: 1e6 * median_ms * math.exp(0.16 * z) for q, z in NORMAL.items()}
    is_valid = not is_server or latency_ns[0.99] <= 15e6
    return {
        **_describe_network(*network),
        "experiment": f"{model}-{engine}-{precision}-{scenario.lower()}",
        "scenario": scenario,
        "batch": batch,
        "samples_per_query": 1 if is_server else 24_576,
        "target_qps": target_qps,
        "latency_bound_ms": 15.0 if is_server else None,
        "loadgen_valid": is_valid,
        "invalid_reason": None if is_valid else "Latency constraint: NO (99th percentile)",
        "worst_check": "LoadGen's verdict" if not is_valid else "duration",
        "worst_margin": -0.75 if is_valid else None,
        "samples_per_second": rate,
        "queries_per_second": rate if is_server else None,
        "queries": 24_576 if is_server else 1,
        "samples": 24_576,
        "latency_min_ns": 0.6 * latency_ns[0.5],
        "latency_mean_ns": 1.05 * latency_ns[0.5],
        "latency_max_ns": 1.4 * latency_ns[0.999],
        **{f"latency_p{q * 100:g}_ns".replace(".", "_"): ns for q, ns in latency_ns.items()},
        "command": "ck benchmark program:image-classification-tensorrt-loadgen-py "
        f"--repetitions=3 --env.CK_LOADGEN_SCENARIO={scenario} --env.CK_BATCH_SIZE={batch}"
        + (f" --env.CK_LOADGEN_TARGET_QPS={target_qps}" if is_server else "")
        + f" --dep_add_tags.weights=model,{engine},{model},{precision} --record",
    }


def make_odd_runs() -> Iterator[Run]:
    """Runs that a page must cope with: failed, INVALID, bare, and with hostile names."""
    nothing = {
        name: None
        for name in Run.__annotations__
        if name not in ("experiment", "file", "repetition", "program", "scenario", "mode")
    }
    odd = "<script>alert('x')</script>\"&$a_b^{$\x00\u202e"
    yield make_run(
        **{
            **nothing,
            "experiment": odd,
            "error": f"exit code 1\nerror: {odd}",
            "disturbances": (),
            "disturbance_kinds": (),
            "command": f"ck benchmark program:{odd}",
        }
    )
    names = ("experiment", "engine", "engine_version", "device", "model", "dataset", "cpu", "gpu")
    yield make_run(
        **dict.fromkeys((*names, "command"), odd),
        precision="_",
        disturbances=(odd,),
        disturbance_kinds=("steal",),
    )
    yield make_run(**dict.fromkeys(names[1:], "\u6a21\u578b"))
    yield make_run(
        scenario="MultiStream",
        loadgen_valid=False,
        invalid_reason=f"Min queries {odd}",
        worst_margin=None,
        queries=3,
    )
    kept = ("samples_per_second", "disturbances", "disturbance_kinds", "command")
    yield make_run(**{name: None for name in nothing if name not in kept}, scenario="SingleStream")
