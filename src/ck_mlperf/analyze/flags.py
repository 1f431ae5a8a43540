"""What speaks against a point, in sentences with figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Literal, NamedTuple

from ck_mlperf.analyze.runs import Point
from ck_mlperf.loadgen.settings import REHEARSAL
from ck_mlperf.results.record import JUDGED_BY

THROUGHPUT_SPREAD = 0.05
"""The largest (max - min) / median of the throughput that is not flagged.

What batch sizes, precisions and versions are told apart by is often not more: a point that does
not come back to it shows no such difference.
"""
TAIL_SPREAD = 0.20
"""The same of the latency's tail.

Chance alone gives that much. A 99th percentile of 662 queries, the fewest from which LoadGen
estimates one, has with an exponential tail a standard error of 8% (sqrt(p (1 - p) / n) by the
density there); three of them then span 14% on average, five 20%.
"""
CLOCK_SPREAD = 0.02
"""The same of the GPU's clock, which goes into the throughput in full.

A step of the clock is 15 MHz, at 1500 MHz 1%: a median may lie on either side of one.
"""
FEWEST_RUNS = 3
"""Below that, nothing is said for sure of a point or of a difference."""
TAILS = {
    scenario: (f"latency_{percentile}_ns", f"{percentile[1:]}th percentile")
    for scenario, percentile in JUDGED_BY.items()
}
"""The latency that MLPerf looks at in a scenario: the column, and its name. Offline has none."""


class Flag(NamedTuple):
    """A reason for doubt."""

    kind: Literal["disturbance", "throughput", "latency", "clock", "verdict", "rehearsal", "single"]
    """single: not suspicious, but too few runs to tell."""
    text: str


def find_flags(point: Point) -> list[Flag]:
    """The reasons to doubt a point; none: nothing that was recorded speaks against it."""
    return [
        *_find_disturbances(point),
        *_find_spreads(point),
        *_find_verdicts(point),
        *_find_rehearsal(point),
        *_find_few(point),
    ]


def measure_spread(values: Sequence[float]) -> float:
    """(max - min) / median, of at least one positive value."""
    return (max(values) - min(values)) / median(values)


def list_values(point: Point, column: str) -> list[float]:
    """What is known of a column over a point's runs."""
    values = (getattr(run, column) for run in point.runs)
    return [value for value in values if value is not None]


def _find_disturbances(point: Point) -> Iterator[Flag]:
    """One of each kind, with the figures of the first run that had it."""
    runs = len(point.runs)
    counts: Counter[str] = Counter()
    texts: dict[str, str] = {}
    for run in point.runs:
        counts.update(set(run.disturbance_kinds))
        for kind, text in zip(run.disturbance_kinds, run.disturbances, strict=True):
            texts.setdefault(kind, text)
    for kind, text in texts.items():
        yield Flag(
            "disturbance", text if runs == 1 else f"in {counts[kind]} of {runs} runs: {text}"
        )


def _find_spreads(point: Point) -> Iterator[Flag]:
    rates = list_values(point, "samples_per_second")
    if measure_spread(rates) > THROUGHPUT_SPREAD:
        yield Flag("throughput", _describe("throughput", rates, 1, "samples/s"))
    if point.configuration["scenario"] in TAILS:
        column, name = TAILS[point.configuration["scenario"]]
        tails = list_values(point, column)
        if tails and measure_spread(tails) > TAIL_SPREAD:
            yield Flag("latency", _describe(f"{name} of the latency", tails, 1e-6, "ms"))
    clocks = list_values(point, "sm_clock_mhz")
    if clocks and measure_spread(clocks) > CLOCK_SPREAD:
        yield Flag("clock", _describe("the GPU's clock", clocks, 1, "MHz"))


def _describe(what: str, values: Sequence[float], scale: float, unit: str) -> str:
    low, high = (f"{bound * scale:,.4g}" for bound in (min(values), max(values)))
    if min(values) * scale >= 1000:
        low, high = (f"{bound * scale:,.0f}" for bound in (min(values), max(values)))
    return (
        f"{what} from {low} to {high} {unit} over {len(values)} runs, "
        f"{measure_spread(values):.0%} of the median"
    )


def _find_verdicts(point: Point) -> Iterator[Flag]:
    verdicts = Counter(run.loadgen_valid for run in point.runs)
    if len(verdicts) > 1:
        yield Flag(
            "verdict", f"LoadGen found {verdicts[True]} of {len(point.runs)} runs VALID, not all"
        )


def _find_rehearsal(point: Point) -> Iterator[Flag]:
    if any((run.explore_run or "").startswith(REHEARSAL) for run in point.runs):
        yield Flag("rehearsal", "the rehearsal of a submission: seconds in place of minutes")


def _find_few(point: Point) -> Iterator[Flag]:
    if len(point.runs) < FEWEST_RUNS:
        count = "1 run" if len(point.runs) == 1 else f"{len(point.runs)} runs"
        yield Flag("single", f"{count}: cannot tell how well it repeats, {FEWEST_RUNS} can")
