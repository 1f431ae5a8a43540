"""`ck analyze loadgen --history`: one configuration over commits and dates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ck_mlperf.analyze.compare import (
    Interval,
    compare_values,
    describe_side,
    get_compared_column,
)
from ck_mlperf.analyze.flags import list_values
from ck_mlperf.analyze.runs import CONFIGURATION, Point, Run, number_runs

VERSIONS = ("engine_version", "driver", "model_sha256", "loadgen_version")
"""The columns that a history goes across: a change of one is named, and begins an entry."""
SERIES = (*(name for name in CONFIGURATION if name not in VERSIONS), "settings")
"""The columns that are the same all through a series."""


class Entry(NamedTuple):
    """The runs of a series at one commit on one date."""

    date: str
    """Of the first run, in UTC: YYYY-MM-DD."""
    commit: str | None
    """With a trailing + where files differed from it; None: not known."""
    point: Point
    """Its runs, at least one."""
    changes: dict[str, tuple[Any, Any]]
    """By column of VERSIONS: the value in the entry before, and here."""
    interval: Interval | None
    """How many times as fast as the entry before; None: none is before, or too few runs."""


class Series(NamedTuple):
    """A configuration's entries, the oldest first."""

    configuration: dict[str, Any]
    """Value by column, for each of SERIES."""
    column: str
    """What is compared."""
    entries: list[Entry]


def trace_history(runs: Iterable[Run]) -> list[Series]:
    """The series that performance runs make, in the order of their first runs."""
    series: dict[tuple[Any, ...], dict[tuple[Any, ...], list[Run]]] = {}
    measured = [run for run in number_runs(list(runs)) if run.number is not None and run.start]
    for run in sorted(measured, key=lambda run: (run.start, run.number)):
        key = tuple(getattr(run, name) for name in SERIES)
        by_entry = series.setdefault(key, {})
        by_entry.setdefault(_identify_entry(run), []).append(run)
    return [
        _trace(dict(zip(SERIES, key, strict=True)), list(by_entry.values()))
        for key, by_entry in series.items()
    ]


def find_newest(series: Sequence[Series]) -> list[Series]:
    """Those that were measured at the commit of the newest run."""
    newest = max(
        (entry for one in series for entry in one.entries),
        key=lambda entry: str(entry.point.runs[-1].start),
        default=None,
    )
    return [one for one in series if newest and one.entries[-1].commit == newest.commit]


def list_newest_runs(series: Sequence[Series], runs: Iterable[Run]) -> Iterator[Run]:
    """The runs at the newest commit, and those that failed since it was first measured."""
    entries = [one.entries[-1] for one in find_newest(series)]
    for entry in entries:
        yield from entry.point.runs
    since = min((str(entry.point.runs[0].start) for entry in entries), default="")
    for run in runs:
        if run.error is not None and str(run.start) >= since:
            yield run


def describe_series(series: Series) -> dict[str, Any]:
    """A series as JSON has it."""
    return {
        "configuration": series.configuration,
        "compared": series.column,
        "entries": [_describe_entry(entry, series.column) for entry in series.entries],
    }


def _describe_entry(entry: Entry, column: str) -> dict[str, Any]:
    interval = entry.interval
    return {
        "date": entry.date,
        "commit": entry.commit,
        **{name: getattr(entry.point.runs[-1], name) for name in VERSIONS},
        **describe_side(entry.point, column),
        "times_as_fast": interval and interval.ratio,
        "interval_95": interval and [interval.low, interval.high],
        "verdict": interval.verdict if interval else "cannot tell",
    }


def _identify_entry(run: Run) -> tuple[Any, ...]:
    date = run.start and run.start.date()
    return (date, run.commit, *(getattr(run, name) for name in VERSIONS))


def _trace(configuration: dict[str, Any], groups: Sequence[Sequence[Run]]) -> Series:
    column = get_compared_column(configuration["scenario"])
    entries: list[Entry] = []
    for runs in groups:
        point = Point(configuration, tuple(runs), None)
        changes, interval = {}, None
        if entries:
            before = entries[-1].point
            for name in VERSIONS:
                pair = getattr(before.runs[-1], name), getattr(runs[0], name)
                if pair[0] != pair[1]:
                    changes[name] = pair
            interval = compare_values(
                list_values(before, column),
                list_values(point, column),
                lower_is_better=column.endswith("_ns"),
            )
        date = f"{runs[0].start:%Y-%m-%d}"
        entries.append(Entry(date, runs[0].commit, point, changes, interval))
    return Series(configuration, column, entries)
