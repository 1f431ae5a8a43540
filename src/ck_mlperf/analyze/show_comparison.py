"""A comparison, for people: what differs, a line per pair, and what the lines are worth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from rich.console import Console

from ck_mlperf.analyze.compare import LEVEL, Comparison, Interval, Pair
from ck_mlperf.analyze.flags import FEWEST_RUNS, TAILS, find_flags, list_values
from ck_mlperf.analyze.points import format_figure
from ck_mlperf.analyze.show import describe_load, lay_out, list_notes
from ck_mlperf.common.printable import make_printable

_MOST_VALUES = 4
_ENOUGH_RUNS = 5
# From here on, a verdict by chance is to be expected of equal systems.
_MANY_PAIRS = 10
# Each with whether it is of figures.
_HEADERS = (
    *(("#", True), ("load", True), ("batch", True), ("A", True), ("n", True), ("B", True)),
    *(("n", True), ("B is", False), ("times as fast", False)),
)


def show_comparison(comparison: Comparison, a: str, b: str, console: Console) -> None:
    """a, b: what the user called the two sets."""
    console.print(make_printable(f"A: {a}"), markup=False)
    console.print(make_printable(f"B: {b}"), markup=False)
    if not comparison.differs:
        console.print("A and B do not differ in their configurations.")
    for name, sides in comparison.differs.items():
        differing = f"{name}: {' -> '.join(map(_list_values, sides))}"
        console.print(make_printable(differing), markup=False)
    by_heading: dict[str, list[tuple[int, Pair]]] = {}
    for number, pair in enumerate(comparison.pairs, 1):
        heading = _describe_heading(pair, comparison.differs)
        by_heading.setdefault(heading, []).append((number, pair))
    for heading, numbered in by_heading.items():
        console.print()
        console.print(make_printable(heading), markup=False)
        rows = [_format_pair(number, pair) for number, pair in numbered]
        console.print(lay_out(_HEADERS, rows), soft_wrap=True)
    console.print()
    if not comparison.pairs:
        console.print("No point of A has a point of B that is otherwise alike.")
    for count, side in ((comparison.only_a, "A"), (comparison.only_b, "B")):
        if count:
            points = "1 point" if count == 1 else f"{count} points"
            console.print(f"{points} of {side} without one partner on the other side")
    if comparison.pairs:
        _show_notes(comparison.pairs, console)


def _describe_heading(pair: Pair, differs: Iterable[str]) -> str:
    configuration = pair.a.configuration
    scenario = configuration["scenario"]
    network = [configuration[name] for name in ("model", "precision") if name not in differs]
    compared = f"{TAILS[scenario][1]} of the latency, ms" if scenario in TAILS else "samples/s"
    return f"{' '.join([*map(str, network), scenario])}: {compared}"


def _format_pair(number: int, pair: Pair) -> list[str]:
    configuration = pair.a.configuration
    batches = dict.fromkeys(point.configuration["batch"] for point in (pair.a, pair.b))
    cells = [str(number), describe_load(configuration), "->".join(map(str, batches))]
    for point in (pair.a, pair.b):
        values = list_values(point, pair.column)
        scale = 1e-6 if pair.column.endswith("_ns") else 1.0
        cells += [format_figure(median(values) * scale) if values else "-", str(len(values))]
    return [*cells, pair.verdict, format_interval(pair.interval)]


def format_interval(interval: Interval | None) -> str:
    """A ratio with its interval; None: it is not known."""
    return f"{interval.ratio:.3f} ({interval.low:.3f}-{interval.high:.3f})" if interval else "-"


def _show_notes(pairs: Sequence[Pair], console: Console) -> None:
    console.print(
        f"A, B: medians of n runs. In parentheses the {LEVEL:.0%} interval of the ratio: faster or "
        "slower where it does not hold 1."
    )
    if len(pairs) >= _MANY_PAIRS:
        chance = len(pairs) * (1 - LEVEL)
        console.print(
            f"Of {len(pairs)} pairs of equal systems, up to {chance:.1f} would be called faster "
            "or slower by chance."
        )
    list_notes(
        (
            f"{number}, {side}: {flag.text}"
            for number, pair in enumerate(pairs, 1)
            for side, point in (("A", pair.a), ("B", pair.b))
            for flag in find_flags(point)
            if flag.kind != "single"
        ),
        console,
    )
    few = [str(number) for number, pair in enumerate(pairs, 1) if pair.interval is None]
    if few:
        console.print(
            f"Too few runs in {', '.join(few)}: record the same again under the same name, until "
            f"A and B have at least {FEWEST_RUNS} runs, better {_ENOUGH_RUNS}."
        )


def _list_values(values: Sequence[Any]) -> str:
    shown = [shorten(value) for value in values[:_MOST_VALUES]]
    return ", ".join(shown + ["..."] * (len(values) > _MOST_VALUES))


def shorten(value: Any) -> str:
    """The value as text, a sha256 by its first digits."""
    text = "-" if value is None else str(value)
    return f"{text[:12]}..." if len(text) == 64 else text  # a sha256
