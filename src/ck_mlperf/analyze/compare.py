"""`ck compare loadgen`: is one set of runs faster than another, or can that not be told?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ck_mlperf.analyze.flags import FEWEST_RUNS, TAILS, find_flags, list_values
from ck_mlperf.analyze.runs import CONFIGURATION, Point
from ck_mlperf.common.errors import UserError

LEVEL = 0.95
RESAMPLES = 4000
SEED = 0
LOAD = ("scenario", "samples_per_query", "target_qps")
"""The columns in which two points may never differ: they would have been given other work."""

# Student's t for 95%, by the runs of the smaller side; from 5 on the bootstrap holds by itself.
_STUDENT_T = {3: 4.303, 4: 3.182}
_THROUGHPUT = "samples_per_second"

Verdict = Literal["faster", "slower", "cannot tell"]


@dataclass(frozen=True)
class Interval:
    """How many times as fast B is as A."""

    ratio: float
    """Of the medians."""
    low: float
    """Of the 95% interval."""
    high: float

    @property
    def verdict(self) -> Verdict:
        """What can be said of B."""
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "cannot tell"


@dataclass(frozen=True)
class Pair:
    """A point of A, and the one of B that it is compared with."""

    a: Point
    b: Point
    column: str
    """What is compared."""
    interval: Interval | None
    """None: a side has too few runs."""

    @property
    def verdict(self) -> Verdict:
        """What can be said of B."""
        return self.interval.verdict if self.interval else "cannot tell"


@dataclass(frozen=True)
class Comparison:
    """The points of two sets of runs, as far as they have partners."""

    differs: dict[str, tuple[list[Any], list[Any]]]
    """The columns of which A and B have no value in common, with those of each."""
    pairs: list[Pair]
    only_a: int
    """Points of A without a partner, or with more than one."""
    only_b: int


def compare_values(
    a: Sequence[float], b: Sequence[float], lower_is_better: bool = False
) -> Interval | None:
    """How many times as fast `b` is as `a`, of positive figures; None below 3 of each.

    A percentile bootstrap of the ratio of medians, with a fixed seed. Of equal systems it calls 2%
    to 4% different from 5 runs of each on, and 7% to 10% of 3 or 4, whose medians it has too few
    values to vary. There, the interval is at least that of Student's t around the ratio, on the
    scale of logarithms, with the bootstrap's standard error and the degrees of freedom of the
    smaller side, and calls 1% different. test_compare.py simulates it.
    """
    fewest = min(len(a), len(b))
    if fewest < FEWEST_RUNS:
        return None
    sign = -1 if lower_is_better else 1
    generator = np.random.default_rng(SEED)
    center, variance = 0.0, 0.0
    resampled = np.zeros(RESAMPLES)
    for values, direction in ((b, sign), (a, -sign)):
        logs = np.log(np.asarray(values, np.float64))
        drawn = generator.integers(0, len(logs), (RESAMPLES, len(logs)))
        medians = np.median(logs[drawn], axis=1)
        resampled += direction * medians
        center += direction * float(np.median(logs))
        # A bootstrap's variance is of the sample, short by that factor of the population's.
        variance += float(medians.var()) * len(logs) / (len(logs) - 1)
    tail = (1 - LEVEL) / 2
    low, high = (float(bound) for bound in np.quantile(resampled, (tail, 1 - tail)))
    if fewest in _STUDENT_T:
        half = _STUDENT_T[fewest] * variance**0.5
        low, high = min(low, center - half), max(high, center + half)
    return Interval(*(float(np.exp(value)) for value in (center, low, high)))


def compare_points(a: Sequence[Point], b: Sequence[Point]) -> Comparison:
    """Pair the points that are equal but for the columns of which A and B share no value.

    Where several points of a side are alike in the columns that are left, none of them is paired.
    Raises UserError where A and B have no load in common.
    """
    differs = {}
    for name in CONFIGURATION:
        values_a, values_b = (
            list(dict.fromkeys(point.configuration[name] for point in side)) for side in (a, b)
        )
        if not set(values_a) & set(values_b):
            differs[name] = values_a, values_b
    for name in LOAD:
        if name in differs:
            loads = (" or ".join(map(str, values)) for values in differs[name])
            raise UserError(
                f"A and B were not given the same load: {name} is {' against '.join(loads)}; "
                "record both with the same CK_LOADGEN_ variables"
            )
    same = [name for name in CONFIGURATION if name not in differs]
    sides = [_index(side, same) for side in (a, b)]
    pairs = [
        _compare_pair(of_a[0], sides[1][key][0])
        for key, of_a in sides[0].items()
        if len(of_a) == len(sides[1].get(key, ())) == 1
    ]
    return Comparison(differs, pairs, len(a) - len(pairs), len(b) - len(pairs))


def describe_comparison(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON has it."""
    return {
        "differs": {
            name: {"a": of_a, "b": of_b} for name, (of_a, of_b) in comparison.differs.items()
        },
        "pairs": [
            {
                "configuration": {
                    name: value
                    for name, value in pair.a.configuration.items()
                    if name not in comparison.differs
                },
                "compared": pair.column,
                "a": describe_side(pair.a, pair.column),
                "b": describe_side(pair.b, pair.column),
                "times_as_fast": pair.interval and pair.interval.ratio,
                "interval_95": pair.interval and [pair.interval.low, pair.interval.high],
                "verdict": pair.verdict,
            }
            for pair in comparison.pairs
        ],
        "unpaired": {"a": comparison.only_a, "b": comparison.only_b},
    }


def get_compared_column(scenario: str) -> str:
    """What points of a scenario are compared by: the latency that MLPerf looks at, else the rate"""
    return TAILS[scenario][0] if scenario in TAILS else _THROUGHPUT


def describe_side(point: Point, column: str) -> dict[str, Any]:
    """A point's figures as JSON has them. column: what is compared."""
    values = list_values(point, column)
    return {
        "values": values,
        "median": float(np.median(values)) if values else None,
        "flags": [flag.text for flag in find_flags(point)],
    }


def _index(points: Iterable[Point], names: Sequence[str]) -> dict[tuple[Any, ...], list[Point]]:
    index: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        key = tuple(point.configuration[name] for name in names)
        index.setdefault(key, []).append(point)
    return index


def _compare_pair(a: Point, b: Point) -> Pair:
    column = get_compared_column(a.configuration["scenario"])
    return Pair(
        a,
        b,
        column,
        compare_values(
            list_values(a, column), list_values(b, column), lower_is_better=column.endswith("_ns")
        ),
    )
