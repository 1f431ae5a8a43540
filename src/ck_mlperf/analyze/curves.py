"""What the plots show, as plain numbers: for each plot its series, for each series its marks."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from ck_mlperf.analyze.rows import PRECISIONS
from ck_mlperf.analyze.runs import Point, Run

MOST_SERIES = 6  # in one plot: more cannot be told apart

LATENCIES = (
    (0.5, "latency_p50_ns"),
    (0.9, "latency_p90_ns"),
    (0.95, "latency_p95_ns"),
    (0.97, "latency_p97_ns"),
    (0.99, "latency_p99_ns"),
    (0.999, "latency_p99_9_ns"),
)
"""The quantiles that LoadGen records, with their columns."""

# What tells two series apart, in the order in which a legend says it.
_PARTS: dict[str, Callable[[Any], str]] = {
    "precision": str,
    "engine": str,
    "engine_version": str,
    "device": str,
    "gpu": str,
    "driver": "driver {}".format,
    "cpu": str,
    "cores": "{} cores".format,
    "batch": "batch {}".format,
    "samples_per_query": "{} samples per query".format,
    "target_qps": lambda rate: f"{format_figure(rate)} queries/s",
    "dataset": str,
    "images": "{:,} images".format,
    "model_sha256": lambda sha256: f"file {sha256[:8]}",
    "program": str,
}
_LONGEST_LABEL = 44
_LONGEST_TITLE = 150

Kind = Literal["latency", "throughput", "tail", "accuracy"]
Verdict = Literal["VALID", "INVALID", "MIXED"]


class Mark(NamedTuple):
    """A marker. low, high: the least and the most of the repetitions in y."""

    point: str
    x: float
    y: float
    low: float
    high: float
    is_valid: bool
    tip: str


class Series(NamedTuple):
    """Marks that belong together, in the order of x."""

    label: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Plot:
    """A plot, before it is drawn. It can be hashed: equal plots are drawn once."""

    name: str
    """Unique among the plots of a report; fit for a file's name."""
    kind: Kind
    title: str
    description: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    bound_ms: float | None = None
    """Server: the latency bound, where all runs shown have the same."""


class Spread(NamedTuple):
    """A figure over the repetitions of a point."""

    low: float
    median: float
    high: float


def identify_point(point: Point) -> str:
    """An id of the point's configuration, the same in every report."""
    text = json.dumps(point.configuration, sort_keys=True)
    return "p" + hashlib.sha256(text.encode()).hexdigest()[:12]


def judge_point(point: Point) -> Verdict:
    """LoadGen's verdict on the repetitions; MIXED where it is not the same for all."""
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


def find_typical_run(point: Point) -> Run:
    """The repetition with the median throughput (the lower of two)."""
    runs = sorted(point.runs, key=lambda run: run.samples_per_second or 0)
    return runs[(len(runs) - 1) // 2]


def name_model(point: Point) -> str:
    """The model's name; with a word where its weights were never trained."""
    model = point.configuration["model"] or "unknown model"
    return f"{model} (random weights)" if point.configuration["weights"] == "random" else model


def list_plots(points: Iterable[Point]) -> list[Plot]:
    """All plots of a report: throughput, tail latency, latency distribution, accuracy."""
    points = list(points)
    plots = [
        *plot_throughput(points),
        *plot_tails(points),
        *plot_latencies(points),
        *plot_accuracy(points),
    ]
    named: dict[str, Plot] = {}
    for plot in plots:
        name, count = plot.name, 1
        while name in named:
            count += 1
            name = f"{plot.name}-{count}"
        named[name] = replace(plot, name=name, title=shorten(plot.title, _LONGEST_TITLE))
    return list(named.values())


def plot_throughput(points: Iterable[Point]) -> list[Plot]:
    """Throughput against the batch (Server: the target QPS), a plot for each scenario and model."""
    plots = []
    for scenario, model, of_plot in _split_by_model(points):
        is_server = scenario == "Server"
        unit = "queries/s" if is_server else "samples/s"
        plots += _draw_against_load(
            of_plot,
            kind="throughput",
            column="samples_per_second",
            scale=1,
            title=f"Throughput, {scenario}, {model}",
            y_label=f"throughput ({unit})",
            unit=unit,
        )
    return plots


def plot_tails(points: Iterable[Point]) -> list[Plot]:
    """The 99th percentile of latency against the load, in Server with the bound.

    For Server and MultiStream, which are judged by it.
    """
    plots = []
    for scenario, model, of_plot in _split_by_model(points):
        if scenario in ("Server", "MultiStream"):
            plots += _draw_against_load(
                of_plot,
                kind="tail",
                column="latency_p99_ns",
                scale=1e-6,
                title=f"Tail latency, {scenario}, {model}",
                y_label="99th percentile of latency (ms)",
                unit="ms",
            )
    return plots


def plot_latencies(points: Iterable[Point]) -> list[Plot]:
    """The latency distribution from LoadGen's percentiles, a plot for each series of points.

    Of more than MOST_SERIES points, those are shown that are spread evenly over the load. Offline
    has no plot: all its samples are asked for at once, so that a latency is a place in the queue.
    """
    plots = []
    for scenario, model, of_model in _split_by_model(points):
        if scenario == "Offline":
            continue
        for label, of_plot in _split_by_series(of_model):
            with_latency = [point for point in of_plot if list_quantiles(find_typical_run(point))]
            if not with_latency:
                continue
            shown = _thin_out(with_latency)
            some = "" if len(shown) == len(of_plot) else f" ({len(shown)} of {len(of_plot)} points)"
            plots.append(
                Plot(
                    name=_slug("latency", scenario, model, label),
                    kind="latency",
                    title=f"Latency, {scenario}, {model}, {label}{some}",
                    description="Cumulative distribution of latency, drawn through the "
                    "percentiles that LoadGen recorded (marked), with more room for the tail. "
                    "Of each point, the repetition with the median throughput.",
                    x_label="latency (ms)",
                    y_label="queries answered within (%)",
                    series=tuple(_draw_distribution(point) for point in shown),
                    bound_ms=_find_bound(shown),
                )
            )
    return plots


def plot_accuracy(points: Iterable[Point]) -> list[Plot]:
    """Accuracy against throughput: of each network its fastest point, a VALID one if there is.

    A single network is nothing to compare: it has no plot.
    """
    plots = []
    for scenario, model, of_model in _split_by_model(points):
        with_accuracy = [point for point in of_model if point.accuracy is not None]
        series = []
        for label, of_network in _split_by_series(with_accuracy, any_load=True):
            fastest = max(of_network, key=rank_point)
            assert fastest.accuracy is not None
            accuracy = fastest.accuracy.top1_percent
            assert accuracy is not None
            rate = measure_throughput(fastest)
            verdict = judge_point(fastest)
            mark = Mark(
                identify_point(fastest),
                rate.median,
                accuracy,
                accuracy,
                accuracy,
                verdict == "VALID",
                f"{label}: {accuracy:.3f}% at {format_figure(rate.median)} samples/s, {verdict}",
            )
            series.append(Series(label, (mark,)))
        for part, some in _split_into_parts(series) if len(series) > 1 else ():
            plots.append(
                Plot(
                    name=_slug("accuracy", scenario, model, part),
                    kind="accuracy",
                    title=f"Accuracy and throughput, {scenario}, {model}{part}",
                    description="Top-1 accuracy against throughput: of each network its fastest "
                    "point that is VALID, or its fastest where none is.",
                    x_label="throughput (samples/s)",
                    y_label="top-1 accuracy (%)",
                    series=some,
                )
            )
    return plots


def rank_point(point: Point) -> tuple[bool, float]:
    """Larger is better: first VALID, then the median throughput."""
    return judge_point(point) == "VALID", measure_throughput(point).median


def list_quantiles(run: Run) -> list[tuple[float, float]]:
    """(quantile, latency in ns) from LoadGen's percentiles, the least and the most among them.

    Of n latencies the least stands at 1/(n+1), the most at n/(n+1). Percentiles beyond that say
    nothing more, and are left out.
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
    """Four digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 999.95 else f"{value:.4g}"


def _draw_against_load(
    points: Sequence[Point],
    *,
    kind: Kind,
    column: str,
    scale: float,
    title: str,
    y_label: str,
    unit: str,
) -> list[Plot]:
    is_server = points[0].configuration["scenario"] == "Server"
    series = []
    for label, of_series in _split_by_series(points):
        marks = []
        for point in of_series:
            values = spread(point, column)
            if values is None:
                continue
            low, median, high = (value * scale for value in values)
            verdict = judge_point(point)
            tip = f"{label}, {describe_load(point)}: {format_figure(median)} {unit}"
            if len(point.runs) > 1:
                tip += f" ({format_figure(low)} to {format_figure(high)} in {len(point.runs)} runs)"
            load = load_of(point)
            assert load is not None
            marks.append(
                Mark(
                    identify_point(point),
                    load,
                    median,
                    low,
                    high,
                    verdict == "VALID",
                    f"{tip}, {verdict}",
                )
            )
        if marks:
            series.append(Series(label, tuple(marks)))
    return [
        Plot(
            name=_slug(title + part),
            kind=kind,
            title=title + part,
            description="The median of the repetitions; the band reaches from the least to the "
            "most. Filled markers: LoadGen's verdict is VALID in all repetitions.",
            x_label="target arrival rate (queries/s)" if is_server else "batch (samples)",
            y_label=y_label,
            series=some,
            bound_ms=_find_bound(points) if kind == "tail" else None,
        )
        for part, some in _split_into_parts(series)
    ]


def _draw_distribution(point: Point) -> Series:
    run = find_typical_run(point)
    verdict = judge_point(point)
    label = describe_load(point)
    marks = []
    for quantile, latency_ns in list_quantiles(run):
        latency_ms = latency_ns * 1e-6
        marks.append(
            Mark(
                identify_point(point),
                latency_ms,
                quantile,
                quantile,
                quantile,
                verdict == "VALID",
                f"{label}: {quantile:.4%} within {format_figure(latency_ms)} ms, {verdict}",
            )
        )
    return Series(label, tuple(marks))


def _split_by_model(points: Iterable[Point]) -> list[tuple[str, str, list[Point]]]:
    """(scenario, model, points) for each pair that there is. Points without a load are left out."""
    found: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        if load_of(point) is not None:
            key = point.configuration["scenario"], name_model(point)
            found.setdefault(key, []).append(point)
    return [(*key, of_key) for key, of_key in sorted(found.items(), key=lambda item: item[0])]


def _split_by_series(
    points: Sequence[Point], any_load: bool = False
) -> list[tuple[str, list[Point]]]:
    """(label, points in the order of the load) for each series, at most one point for a load.

    any_load: a series is all points of a network, whatever their load.
    """
    load = {"batch", "samples_per_query", "target_qps"}
    if points and points[0].configuration["scenario"] == "Server" and not any_load:
        load.remove("batch")
    names = [name for name in _PARTS if name not in load]
    by_key = _group(points, names)
    if not by_key:
        return []
    if not any_load and any(len(set(map(load_of, of))) < len(of) for of in by_key.values()):
        names.append("samples_per_query")
        by_key = _group(points, names)
    telling = _find_telling(list(by_key)) or [names.index("precision"), names.index("engine")]
    labelled = []
    for key, of_series in by_key.items():
        parts = [_describe_part(names[place], key[place]) for place in telling]
        of_series.sort(key=lambda point: load_of(point) or 0)
        labelled.append((shorten(", ".join(parts)), of_series))
    return sorted(labelled, key=lambda series: _order_label(series[0]))


def _find_telling(keys: Sequence[tuple[Any, ...]]) -> list[int]:
    """Places that tell all keys apart, from the first on; a place that adds nothing is left out."""
    telling: list[int] = []
    count = 1
    for place in range(len(keys[0])):
        told = len({tuple(key[one] for one in (*telling, place)) for key in keys})
        if told > count:
            telling.append(place)
            count = told
    return telling


def _group(points: Iterable[Point], names: Sequence[str]) -> dict[tuple[Any, ...], list[Point]]:
    found: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        key = tuple(point.configuration[name] for name in names)
        found.setdefault(key, []).append(point)
    return found


def _order_label(label: str) -> tuple[int, str]:
    """Precisions from the widest on, numbers by their value."""
    first = label.split(",")[0]
    place = PRECISIONS.index(first) if first in PRECISIONS else len(PRECISIONS)
    return place, re.sub(r"\d+", lambda number: number[0].zfill(12), label)


def _describe_part(name: str, value: Any) -> str:
    return f"unknown {name}" if value is None else _PARTS[name](value)


def _split_into_parts(series: Sequence[Series]) -> list[tuple[str, tuple[Series, ...]]]:
    """Parts of at most MOST_SERIES series; with a word for the title where there are several."""
    count = -(-len(series) // MOST_SERIES)
    return [
        (
            f", part {part + 1} of {count}" if count > 1 else "",
            tuple(series[part * MOST_SERIES : (part + 1) * MOST_SERIES]),
        )
        for part in range(count)
    ]


def _thin_out(points: Sequence[Point]) -> list[Point]:
    if len(points) <= MOST_SERIES:
        return list(points)
    step = (len(points) - 1) / (MOST_SERIES - 1)
    return [points[round(place * step)] for place in range(MOST_SERIES)]


def _find_bound(points: Iterable[Point]) -> float | None:
    bounds = {run.latency_bound_ms for point in points for run in point.runs}
    return bounds.pop() if len(bounds) == 1 else None


def shorten(text: str, longest: int = _LONGEST_LABEL) -> str:
    """One line of printable characters, cut where it is too long."""
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return text if len(text) <= longest else text[: longest - 1] + "\u2026"


def _slug(*parts: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", " ".join(parts).lower()).strip("-.")[:80]
