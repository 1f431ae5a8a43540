"""The points and what a query gave, for people: tables of text, 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ck_mlperf.analyze.flags import (
    FEWEST_RUNS,
    TAILS,
    Flag,
    find_flags,
    list_values,
    measure_spread,
)
from ck_mlperf.analyze.points import format_figure
from ck_mlperf.analyze.runs import Point, Run, group_points
from ck_mlperf.common.printable import make_printable

# By these, points are shown under one heading.
_HEADING = (
    *("program", "engine", "engine_version", "device", "model", "weights", "precision"),
    *("model_sha256", "dataset", "images", "cpu", "cores", "gpu", "driver"),
)
# Each with whether it is of figures.
_HEADERS = (
    *(("#", True), ("scenario", False), ("load", True), ("batch", True), ("samples/s", True)),
    *(("spread", True), ("n", True), ("latency ms", False), ("LoadGen", False), ("rules", False)),
)


def show_points(runs: Sequence[Run], console: Console, with_runs: bool = False) -> None:
    """The points under their headings, what speaks against them, and the runs that have none.

    with_runs: a line for each run of a point, too.
    """
    points = group_points(runs)
    by_heading: dict[tuple[Any, ...], list[tuple[int, Point]]] = {}
    for number, point in enumerate(points, 1):
        key = tuple(point.configuration[name] for name in _HEADING)
        by_heading.setdefault(key, []).append((number, point))
    flags = [find_flags(point) for point in points]
    for numbered in by_heading.values():
        for line in _describe_heading(numbered[0][1]):
            console.print(make_printable(line), markup=False)
        rows = [_format_point(number, point, flags[number - 1]) for number, point in numbered]
        console.print(lay_out(_HEADERS, rows), soft_wrap=True)
        if with_runs:
            list_notes(
                (_describe_run(number, run) for number, point in numbered for run in point.runs),
                console,
            )
        console.print()
    if points:
        console.print(_LEGEND)
    _show_flags(flags, console)
    _show_others(runs, points, console)


def show_answer(columns: Sequence[str], rows: Sequence[Sequence[Any]], console: Console) -> None:
    """What a query gave: a table, or where that is too wide, a line for each value."""
    cells = [[make_printable("" if cell is None else str(cell)) for cell in row] for row in rows]
    table = lay_out([(make_printable(name), False) for name in columns], cells)
    if max(map(cell_len, table.plain.splitlines())) <= console.width:
        console.print(table, soft_wrap=True)
        return
    for number, row in enumerate(cells, 1):
        console.print(f"-- row {number}", style="bold")
        lines = [f"{make_printable(name)}: {cell}" for name, cell in zip(columns, row, strict=True)]
        console.print(Text("\n".join(lines)), soft_wrap=True)


def lay_out(headers: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]]) -> Text:
    """A table of columns side by side. headers: each with whether its column is of figures.

    rich's own tables take a second for 2,000 rows.
    """
    lines = [[name for name, _ in headers], *rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    laid = []
    for line in lines:
        padded = []
        for cell, width, (_, is_figure) in zip(line, widths, headers, strict=True):
            space = " " * (width - cell_len(cell))
            padded.append(space + cell if is_figure else cell + space)
        laid.append(" ".join(padded).rstrip())
    text = Text("\n".join(laid))
    text.stylize("bold", 0, len(laid[0]))
    return text


def list_notes(notes: Iterable[str], console: Console) -> None:
    """Sentences, each folded with an indent."""
    lines: list[str] = []
    for note in notes:
        lines += textwrap.wrap(
            make_printable(note), console.width, initial_indent="  ", subsequent_indent="    "
        )
    if lines:
        console.print(Text("\n".join(lines)), soft_wrap=True)


def describe_load(configuration: dict[str, Any]) -> str:
    """What LoadGen sends, in a word."""
    if configuration["scenario"] == "Server":
        return f"{format_figure(configuration['target_qps'])}/s"
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


def _describe_run(number: int, run: Run) -> str:
    """A run of the point `number`, in a line."""
    said = [f"{number}.{run.number}: {run.label}"]
    said.append(f"{format_figure(run.samples_per_second or 0)} samples/s")
    tail = _get_tail(run)
    if tail:
        said.append(tail)
    said.append({True: "VALID", False: "INVALID", None: "no verdict"}[run.loadgen_valid])
    return ", ".join([*said, *(f"disturbed: {kind}" for kind in run.disturbance_kinds)])


def _get_tail(run: Run) -> str | None:
    """The latency that the run's scenario is judged by; None: by none, or it is not known."""
    column, name = TAILS.get(run.scenario, (None, ""))
    latency_ns = column and getattr(run, column)
    return f"p{name[:2]} {format_figure(latency_ns / 1e6)} ms" if latency_ns else None


def _format_point(number: int, point: Point, flags: Sequence[Flag]) -> list[str]:
    configuration, runs = point.configuration, point.runs
    is_doubtful = any(flag.kind != "single" for flag in flags)
    rates = list_values(point, "samples_per_second")
    tail = "-"
    if configuration["scenario"] in TAILS:
        column, name = TAILS[configuration["scenario"]]
        values = list_values(point, column)
        if values:
            tail = f"p{name[:2]} {format_figure(median(values) / 1e6)}"
    return [
        f"{'!' if is_doubtful else ''}{number}",
        configuration["scenario"],
        describe_load(configuration),
        str(configuration["batch"]),
        format_figure(median(rates)),
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


def _show_flags(flags: Sequence[Sequence[Flag]], console: Console) -> None:
    few, doubts = [], []
    for number, of_point in enumerate(flags, 1):
        for flag in of_point:
            if flag.kind == "single":
                few.append(number)
            else:
                doubts.append(f"{number}: {flag.text}")
    if doubts:
        console.print("\nDoubtful (!):")
        list_notes(doubts, console)
    if few:
        which = "each of them" if len(few) == len(flags) else _list_numbers(few)
        console.print(
            f"\nToo few runs to tell how well a point repeats: {which}. Make at least "
            f"{FEWEST_RUNS} of each."
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
    reasons = [(run.error or "").strip().splitlines() or ["no message"] for run in failed]
    list_notes(
        (f"{run.experiment}/{run.file}: {r[-1]}" for run, r in zip(failed, reasons, strict=True)),
        console,
    )
    if not runs:
        console.print(
            "No runs are recorded. `ck benchmark ... --record --record_repo=local "
            "--record_uoa=NAME` records them.",
            markup=False,
        )
    elif not points:
        console.print("No run measured a speed.")
        list_notes(
            (
                f"{run.model} {run.precision} on {run.engine}, {run.images} images of "
                f"{run.dataset}: top-1 {run.top1_percent:.3f}%"
                for run in runs
                if run.top1_percent is not None
            ),
            console,
        )
