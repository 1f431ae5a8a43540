"""A history, for people: a table for each configuration, a line for each commit and date."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from rich.console import Console

from ck_mlperf.analyze.conditions import name_configuration
from ck_mlperf.analyze.flags import TAILS, find_flags, list_values
from ck_mlperf.analyze.history import Entry, Series
from ck_mlperf.analyze.points import format_figure
from ck_mlperf.analyze.show import lay_out, list_notes
from ck_mlperf.analyze.show_comparison import format_interval, shorten
from ck_mlperf.common.printable import make_printable

_LEGEND = (
    "Each line is compared with the one above it: how many times as fast, with the 95% interval; "
    "faster or slower where that does not hold 1. Figures are medians of n runs."
)


def show_history(series: Sequence[Series], console: Console) -> None:
    """The series of several entries; the others are counted."""
    several = [one for one in series if len(one.entries) > 1]
    for one in several:
        for line in _describe_heading(one):
            console.print(make_printable(line), markup=False)
        headers = [("date", False), ("commit", False), ("n", True), (_name_figure(one), True)]
        headers += [("times as fast", False), ("it is", False)]
        rows = [_format_entry(entry, one.column, entry is one.entries[0]) for entry in one.entries]
        console.print(lay_out(headers, rows), soft_wrap=True)
        list_notes((note for entry in one.entries for note in _list_notes(entry)), console)
        console.print()
    if several:
        console.print(_LEGEND)
    once = len(series) - len(several)
    if once:
        which = "1 configuration was" if once == 1 else f"{once} configurations were"
        console.print(f"{which} measured at one commit on one date only.")
    if not series:
        console.print("No run measured a speed.")


def _describe_heading(series: Series) -> Iterable[str]:
    configuration = series.configuration
    yield name_configuration(configuration)
    machine = [configuration["gpu"] or configuration["cpu"], configuration["device"]]
    yield " | ".join(
        [*map(str, machine), f"{configuration['dataset']}, {configuration['images']} images"]
    )
    if configuration["settings"]:
        yield configuration["settings"]


def _name_figure(series: Series) -> str:
    scenario = series.configuration["scenario"]
    return f"p{TAILS[scenario][1][:2]} ms" if scenario in TAILS else "samples/s"


def _format_entry(entry: Entry, column: str, is_first: bool) -> list[str]:
    values = list_values(entry.point, column)
    scale = 1e-6 if column.endswith("_ns") else 1.0
    interval = entry.interval
    verdict = "" if is_first else interval.verdict if interval else "cannot tell"
    return [
        entry.date,
        _shorten_commit(entry),
        str(len(values)),
        format_figure(median(values) * scale) if values else "-",
        format_interval(interval),
        verdict,
    ]


def _list_notes(entry: Entry) -> Iterable[str]:
    where = f"{entry.date} {_shorten_commit(entry)}"
    for name, (before, now) in entry.changes.items():
        yield f"{where}: {name} {shorten(before)} -> {shorten(now)}"
    for flag in find_flags(entry.point):
        if flag.kind != "single":
            yield f"{where}: {flag.text}"


def _shorten_commit(entry: Entry) -> str:
    """12 of its 40 digits tell commits apart; a + may follow them."""
    return "-" if entry.commit is None else entry.commit[:12] + entry.commit[40:]
