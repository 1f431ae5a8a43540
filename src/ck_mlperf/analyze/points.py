"""What the page and the plots say about a point: its figures, its verdict, its load."""

from __future__ import annotations

import statistics
from typing import Literal, NamedTuple

from ck_mlperf.analyze.flags import TAILS
from ck_mlperf.analyze.runs import Point, Run, identify

LATENCIES = (
    (0.5, "latency_p50_ns"),
    (0.9, "latency_p90_ns"),
    (0.95, "latency_p95_ns"),
    (0.97, "latency_p97_ns"),
    (0.99, "latency_p99_ns"),
    (0.999, "latency_p99_9_ns"),
)
"""The quantiles that LoadGen records, with their columns."""

Verdict = Literal["VALID", "INVALID", "MIXED"]


class Spread(NamedTuple):
    """A figure over the repetitions of a point."""

    low: float
    median: float
    high: float


class Latency(NamedTuple):
    """The latency that a point is judged by, in ms."""

    percentile: str
    """p90 or p99."""
    ms: Spread
    is_early_stopped: bool
    """Whether it is early stopping's estimate."""


def identify_point(point: Point) -> str:
    """An id of the point's configuration, the same in every page."""
    return identify(point.configuration)


def judge_point(point: Point) -> Verdict:
    """LoadGen's verdict on the repetitions; MIXED if it is not the same for all."""
    valid = [run.loadgen_valid is True for run in point.runs]
    if all(valid):
        return "VALID"
    return "MIXED" if any(valid) else "INVALID"


def spread(point: Point, column: str) -> Spread | None:
    """The least, the median and the most of a column over the repetitions; None: no value."""
    values = [value for run in point.runs if (value := getattr(run, column)) is not None]
    return Spread(min(values), statistics.median(values), max(values)) if values else None


def measure_throughput(point: Point) -> Spread:
    """Samples per second over the repetitions, which every point has."""
    found = spread(point, "samples_per_second")
    assert found is not None
    return found


def measure_latency(point: Point) -> Latency | None:
    """The percentile that the rules judge the scenario by; None: by none, or none was recorded.

    Early stopping's estimate where all repetitions have one, else the percentile as measured.
    """
    if point.configuration["scenario"] not in TAILS:
        return None
    column, _ = TAILS[point.configuration["scenario"]]
    name = column.removeprefix("latency_").removesuffix("_ns")
    estimates = f"early_stopped_{name}_ns"
    is_estimate = point.configuration["scenario"] != "Server" and all(
        getattr(run, estimates) for run in point.runs
    )
    found = spread(point, estimates if is_estimate else column)
    return found and Latency(name, Spread(*(value * 1e-6 for value in found)), is_estimate)


def rank_point(point: Point) -> tuple[bool, float]:
    """Larger is better: first VALID, then the median throughput."""
    return judge_point(point) == "VALID", measure_throughput(point).median


def find_typical_run(point: Point) -> Run:
    """The repetition with the median throughput (the lower of two)."""
    runs = sorted(point.runs, key=lambda run: run.samples_per_second or 0)
    return runs[(len(runs) - 1) // 2]


def list_quantiles(run: Run) -> list[tuple[float, float]]:
    """(quantile, latency in ns) from LoadGen's percentiles, with the least and the most latency.

    Of n latencies the least is the quantile 1/(n+1), the most n/(n+1). Percentiles beyond these add
    nothing and are left out.
    """
    count = run.queries
    least, most = run.latency_min_ns, run.latency_max_ns
    if count is None or least is None or most is None:
        return []
    quantiles = [
        (quantile, latency)
        for quantile, column in LATENCIES
        if 1 / (count + 1) < quantile < count / (count + 1)
        and (latency := getattr(run, column)) is not None
    ]
    return [(1 / (count + 1), least), *quantiles, (count / (count + 1), most)]


def name_model(point: Point) -> str:
    """The model's name, marked if its weights were never trained."""
    model = point.configuration["model"] or "unknown model"
    return f"{model} (random weights)" if point.configuration["weights"] == "random" else model


def load_of(point: Point) -> float | None:
    """What a sweep varies: the target QPS in Server, else the batch."""
    name = "target_qps" if point.configuration["scenario"] == "Server" else "batch"
    load: float | None = point.configuration[name]
    return load


def describe_load(point: Point) -> str:
    """The load in words."""
    load = load_of(point)
    if load is None:
        return "unknown load"
    if point.configuration["scenario"] == "Server":
        return f"{format_figure(load)} queries/s"
    return f"batch {load:g}"


def format_figure(value: float) -> str:
    """Four digits, or all digits before the decimal point."""
    return f"{value:,.0f}" if abs(value) >= 999.95 else f"{value:.4g}"
