"""The points and what a query gave, for people: tables of text, 80 columns wide."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .flags import FEWEST_RUNS, TAILS, Flag, find_flags, list_values, measure_spread
from .runs import Point, Run, group_points

# By these, points are shown under one heading.
_HEADING = (
    *("program", "engine", "engine_version", "device", "model", "weights", "precision"),
    *("model_sha256", "dataset", "images", "cpu", "cores", "gpu", "driver"),
)
_HEADERS = (
    *("#", "scenario", "load", "batch", "samples/s", "spread", "n", "latency ms"),
    *("LoadGen", "rules"),
)
_LEFT = ("scenario", "latency ms", "LoadGen", "rules")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def show_points(runs: Sequence[Run], console: Console) -> None:
    """The points under their headings, what speaks against them, and the runs that have none."""
    points = group_points(runs)
    by_heading: dict[tuple[Any, ...], list[tuple[int, Point]]] = {}
    for number, point in enumerate(points, 1):
        key = tuple(point.configuration[name] for name in _HEADING)
        by_heading.setdefault(key, []).append((number, point))
    for numbered in by_heading.values():
        for line in _describe_heading(numbered[0][1]):
            console.print(plain(line))
        console.print(_draw_points(numbered))
        console.print()
    if points:
        console.print(plain(_LEGEND))
    _show_flags(points, console)
    _show_others(runs, points, console)


def show_answer(columns: Sequence[str], rows: Sequence[Sequence[Any]], console: Console) -> None:
    """What a query gave: a table, or where that is too wide, a line for each value."""
    cells = [[plain(_format_cell(cell)) for cell in row] for row in rows]
    names = [plain(name) for name in columns]
    widths = [max(text.cell_len for text in column) for column in zip(names, *cells, strict=True)]
    if sum(widths) + len(widths) <= console.width:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
        for name in names:
            table.add_column(name)
        for row in cells:
            table.add_row(*row)
        console.print(table)
        return
    for number, row in enumerate(cells, 1):
        console.print(f"-- row {number}", style="bold")
        for name, cell in zip(names, row, strict=True):
            console.print(plain(f"{name}: ") + cell, soft_wrap=True)


def format_number(value: float) -> str:
    """To four significant digits at least: 15,686 / 484.1 / 0.9419."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def describe_load(configuration: dict[str, Any]) -> str:
    """What LoadGen sends, in a word."""
    if configuration["scenario"] == "Server":
        return f"{format_number(configuration['target_qps'])}/s"
    if configuration["scenario"] == "MultiStream":
        return f"{configuration['samples_per_query']}"
    return "-" if configuration["scenario"] == "Offline" else "1"


_LEGEND = (
    "load: samples a query, or queries/s (Server). samples/s, latency: medians of n runs; spread: "
    "(max - min) / median. latency: the percentile that the scenario is judged by. LoadGen: "
    "its own verdict, where runs differ how many are VALID. rules: MLPerf's on performance, as "
    "far as one run shows them; not verified by MLCommons."
)


def _describe_heading(point: Point) -> Iterable[str]:
    first, run = point.configuration, point.runs[-1]
    weights = ", RANDOM WEIGHTS" if first["weights"] == "random" else ""
    network = f"{first['model']} {first['precision']}{weights}"
    engine = f"{first['engine']} {first['engine_version']} on {first['device']}"
    yield f"{network} | {engine} | {first['dataset']}, {first['images']} images"
    machine = [f"{first['cpu']}, {first['cores']} cores"]
    if first["gpu"]:
        machine.append(f"{first['gpu']}, driver {first['driver']}")
    if point.accuracy:
        machine.append(f"top-1 {point.accuracy.top1_percent:.3f}%")
    else:
        machine.append("accuracy not measured")
    yield " | ".join(machine)
    if run.unofficial:
        yield f"no official result: {run.unofficial}"


def _draw_points(numbered: Iterable[tuple[int, Point]]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for name in _HEADERS:
        table.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=True)
    for number, point in numbered:
        table.add_row(*map(plain, _format_point(number, point)))
    return table


def _format_point(number: int, point: Point) -> list[str]:
    configuration, runs = point.configuration, point.runs
    is_doubtful = any(flag.kind != "single" for flag in find_flags(point))
    rates = list_values(point, "samples_per_second")
    tail = "-"
    if configuration["scenario"] in TAILS:
        column, name = TAILS[configuration["scenario"]]
        values = list_values(point, column)
        if values:
            tail = f"p{name[:2]} {format_number(median(values) / 1e6)}"
    return [
        f"{'!' if is_doubtful else ''}{number}",
        configuration["scenario"],
        describe_load(configuration),
        str(configuration["batch"]),
        format_number(median(rates)),
        f"{measure_spread(rates):.1%}" if len(rates) > 1 else "-",
        str(len(runs)),
        tail,
        _summarise([run.loadgen_valid for run in runs], "VALID", "INVALID"),
        _summarise([run.rules_met for run in runs], "met", "not met"),
    ]


def _summarise(verdicts: Sequence[bool | None], yes: str, no: str) -> str:
    if None in verdicts:
        return "-"
    if len(set(verdicts)) > 1:
        return f"{sum(map(bool, verdicts))} of {len(verdicts)}"
    return yes if verdicts[0] else no


def _show_flags(points: Sequence[Point], console: Console) -> None:
    few = []
    doubts: list[tuple[int, Flag]] = []
    for number, point in enumerate(points, 1):
        for flag in find_flags(point):
            if flag.kind == "single":
                few.append(number)
            else:
                doubts.append((number, flag))
    if doubts:
        console.print("\nDoubtful (!):")
    for number, flag in doubts:
        console.print(Padding(plain(f"{number}: {flag.text}"), (0, 0, 0, 2)))
    if few:
        which = "each of them" if len(few) == len(points) else _list_numbers(few)
        console.print()
        console.print(
            plain(
                f"Too few runs to tell how well a point repeats: {which}. Make at least "
                f"{FEWEST_RUNS} of each."
            )
        )


def _list_numbers(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 as 1-3, 7."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in spans)


def _show_others(runs: Sequence[Run], points: Sequence[Point], console: Console) -> None:
    failed = [run for run in runs if run.error is not None]
    if failed:
        console.print(f"\nFailed: {len(failed)} of {len(runs)} runs")
    for run in failed:
        reason = (run.error or "").strip().splitlines() or ["no message"]
        console.print(Padding(plain(f"{run.experiment}/{run.file}: {reason[-1]}"), (0, 0, 0, 2)))
    if not points:
        console.print("No run measured a speed.")
        for run in runs:
            if run.top1_percent is not None:
                console.print(
                    plain(
                        f"{run.model} {run.precision} on {run.engine}, {run.images} images of "
                        f"{run.dataset}: top-1 {run.top1_percent:.3f}%"
                    )
                )


def _format_cell(value: Any) -> str:
    return "" if value is None else str(value)


def plain(text: str) -> Text:
    """Text as it is: no markup, and nothing that a terminal would obey."""
    return Text(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))
