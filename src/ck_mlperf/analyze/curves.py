"""What the plots show, as plain numbers: for each plot its series, for each series its marks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from ck_mlperf.analyze.points import (
    describe_load,
    find_typical_run,
    format_figure,
    identify_point,
    judge_point,
    list_quantiles,
    load_of,
    measure_throughput,
    rank_point,
    spread,
)
from ck_mlperf.analyze.runs import Point
from ck_mlperf.analyze.series import shorten, split_by_model, split_by_series

MOST_SERIES = 6  # in one plot: more cannot be told apart
LONGEST_TITLE = 150

Kind = Literal["latency", "throughput", "tail", "accuracy"]


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
    """Unique among the plots of a page; fit for a file's name."""
    kind: Kind
    title: str
    description: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    bound_ms: float | None = None
    """Server: the latency bound, if all runs shown have the same."""


def list_plots(points: Iterable[Point]) -> list[Plot]:
    """All plots of a page: throughput, tail latency, latency distribution, accuracy."""
    points = list(points)
    named: dict[str, Plot] = {}
    for plot in (
        *plot_throughput(points),
        *plot_tails(points),
        *plot_latencies(points),
        *plot_accuracy(points),
    ):
        name, count = plot.name, 1
        while name in named:
            count += 1
            name = f"{plot.name}-{count}"
        named[name] = replace(plot, name=name, title=shorten(plot.title, LONGEST_TITLE))
    return list(named.values())


def plot_throughput(points: Iterable[Point]) -> list[Plot]:
    """Throughput against the batch (Server: the target QPS), a plot for each scenario and model."""
    plots = []
    for scenario, model, of_plot in split_by_model(points):
        unit = "queries/s" if scenario == "Server" else "samples/s"
        title, y_label = f"Throughput, {scenario}, {model}", f"throughput ({unit})"
        plots += _plot_against_load(
            of_plot, "throughput", "samples_per_second", 1, title, y_label, unit
        )
    return plots


def plot_tails(points: Iterable[Point]) -> list[Plot]:
    """The 99th percentile of latency against the load, in Server with the bound.

    For Server and MultiStream, which are judged by it.
    """
    plots = []
    for scenario, model, of_plot in split_by_model(points):
        if scenario in ("Server", "MultiStream"):
            title, y_label = f"Tail latency, {scenario}, {model}", "99th percentile of latency (ms)"
            plots += _plot_against_load(
                of_plot, "tail", "latency_p99_ns", 1e-6, title, y_label, "ms"
            )
    return plots


def plot_latencies(points: Iterable[Point]) -> list[Plot]:
    """The latency distribution from LoadGen's percentiles, a plot for each series of points.

    Of more than MOST_SERIES points, it shows some that are spread evenly over the load. Offline has
    no plot: it asks for all samples at once, so a latency is a place in the queue.
    """
    plots = []
    for scenario, model, of_model in split_by_model(points):
        if scenario == "Offline":
            continue
        for label, of_plot in split_by_series(of_model):
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
                    "Each point is shown by the repetition with the median throughput.",
                    x_label="latency (ms)",
                    y_label="queries answered within (%)",
                    series=tuple(map(_plot_distribution, shown)),
                    bound_ms=_find_bound(shown),
                )
            )
    return plots


def plot_accuracy(points: Iterable[Point]) -> list[Plot]:
    """Accuracy against throughput: of each network its fastest point, a VALID one if there is.

    A single network has no plot: there is nothing to compare.
    """
    plots = []
    for scenario, model, of_model in split_by_model(points):
        series = []
        with_accuracy = [point for point in of_model if point.accuracy is not None]
        for label, of_network in split_by_series(with_accuracy, any_load=True):
            fastest = max(of_network, key=rank_point)
            assert fastest.accuracy is not None
            accuracy = fastest.accuracy.top1_percent
            assert accuracy is not None
            rate = measure_throughput(fastest).median
            tip = f"{label}: {accuracy:.3f}% at {format_figure(rate)} samples/s"
            series.append(Series(label, (_make_mark(fastest, rate, accuracy, tip),)))
        for part, some in _split_into_parts(series) if len(series) > 1 else ():
            plots.append(
                Plot(
                    name=_slug("accuracy", scenario, model, part),
                    kind="accuracy",
                    title=f"Accuracy and throughput, {scenario}, {model}{part}",
                    description="Top-1 accuracy against throughput: of each network its fastest "
                    "point that is VALID, or its fastest if none is.",
                    x_label="throughput (samples/s)",
                    y_label="top-1 accuracy (%)",
                    series=some,
                )
            )
    return plots


def _plot_against_load(
    points: Sequence[Point],
    kind: Kind,
    column: str,
    scale: float,
    title: str,
    y_label: str,
    unit: str,
) -> list[Plot]:
    """Plots of the median of a column, times `scale`, which gives it the unit."""
    is_server = points[0].configuration["scenario"] == "Server"
    series = []
    for label, of_series in split_by_series(points):
        marks = []
        for point in of_series:
            values, load = spread(point, column), load_of(point)
            if values is None or load is None:
                continue
            low, median, high = (value * scale for value in values)
            tip = f"{label}, {describe_load(point)}: {format_figure(median)} {unit}"
            if len(point.runs) > 1:
                tip += f" ({format_figure(low)} to {format_figure(high)} in {len(point.runs)} runs)"
            marks.append(_make_mark(point, load, median, tip, low, high))
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


def _plot_distribution(point: Point) -> Series:
    label = describe_load(point)
    marks = []
    for quantile, latency_ns in list_quantiles(find_typical_run(point)):
        latency_ms = latency_ns * 1e-6
        tip = f"{label}: {quantile:.4%} within {format_figure(latency_ms)} ms"
        marks.append(_make_mark(point, latency_ms, quantile, tip))
    return Series(label, tuple(marks))


def _make_mark(
    point: Point, x: float, y: float, tip: str, low: float | None = None, high: float | None = None
) -> Mark:
    verdict = judge_point(point)
    return Mark(
        identify_point(point),
        x,
        y,
        y if low is None else low,
        y if high is None else high,
        verdict == "VALID",
        f"{tip}, {verdict}",
    )


def _split_into_parts(series: Sequence[Series]) -> list[tuple[str, tuple[Series, ...]]]:
    """Parts of at most MOST_SERIES series; with words for the title if there are several."""
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


def _slug(*parts: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", " ".join(parts).lower()).strip("-.")[:80]
