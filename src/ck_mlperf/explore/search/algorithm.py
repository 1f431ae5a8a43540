"""Which load to probe next, to find the largest one that is VALID; and how sure the answer is.

Assumed: the chance that a probe is VALID does not rise with the load. Each probe is one toss of a
coin with that chance, so near the edge one VALID says little.

1. From a start, the load is doubled (or halved) until the edge is between a VALID probe and one
   that is not, then bisected until the two are neighbours.
2. The lower one is probed again until it was VALID `repeats` times. If it fails once, the next
   lower load is the candidate: every load above the answer has a probe that was not VALID.
3. If no candidate was given up, the upper neighbour is probed again too, because its only probe may
   have been an accident. If it turns out VALID more often than not, the search goes on above it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

CONFIDENCE = 0.95
_DIGITS = 5
_LOWEST_RATE, _HIGHEST_RATE = 1e-3, 1e8  # the range of CK_LOADGEN_TARGET_QPS


class Ending(Enum):
    """Why a search ended."""

    FOUND = "found"
    ALL_VALID = "the highest load is VALID"
    NONE_VALID = "the lowest load is not VALID"
    BUDGET = "the runs were used up"


@dataclass(frozen=True)
class Count:
    """The verdicts of a load's probes."""

    valid: int
    runs: int

    def __str__(self) -> str:
        return f"VALID in {self.valid} of {self.runs}"


@dataclass(frozen=True)
class Answer:
    """The result of a search."""

    ending: Ending
    load: float | None
    """The largest load that was VALID in all its probes, `repeats` of them; None: there is none, or
    the runs were used up before."""
    counts: Mapping[float, Count]
    """By load, rising, for every load that was probed."""
    candidates: int
    """How many loads were probed again because they might be the answer."""
    grid_runs: int
    """What a grid would take: each load from the lowest to the highest that was probed, once, and
    the repeats at the edge."""

    @property
    def runs(self) -> int:
        """How many probes the search took."""
        return sum(count.runs for count in self.counts.values())

    @property
    def above(self) -> float | None:
        """The next load above the answer that was probed."""
        if self.load is None:
            return None
        return next((load for load in self.counts if load > self.load), None)

    @property
    def least_chance(self) -> float | None:
        """The chance that a run at `load` is VALID is at least this, with CONFIDENCE.

        Clopper and Pearson's bound for a load that was VALID in all n runs, a**(1/n). a, the chance
        to be wrong, is shared among the candidates: each could have passed by luck.
        """
        if self.load is None:
            return None
        return float(((1 - CONFIDENCE) / self.candidates) ** (1 / self.counts[self.load].runs))


def list_rates(resolution: float, lowest: float = 0, highest: float = _HIGHEST_RATE) -> list[float]:
    """Rates to choose from: the powers of 1 + resolution between the two, to 5 digits.

    They do not depend on the start of a search: one that continues uses the same loads.
    """
    rates: list[float] = []
    power = _LOWEST_RATE
    while power <= highest:
        rate = float(f"{power:.{_DIGITS}g}")
        if max(lowest, _LOWEST_RATE) <= rate <= highest:
            rates.append(rate)
        power *= 1 + resolution
    return rates


def list_counts(highest: int, resolution: float = 0) -> list[int]:
    """Whole numbers to choose from, up to `highest`: all, or with steps of at least `resolution`.

    `highest` itself is always one.
    """
    counts = [1]
    while counts[-1] < highest:
        counts.append(min(highest, max(counts[-1] + 1, int(counts[-1] * (1 + resolution)))))
    return counts


def search_largest(
    loads: Sequence[float], start: float, repeats: int, budget: int
) -> Generator[float, bool, Answer]:
    """A search among `loads` (rising): yields a load to probe, is sent whether the probe was VALID.

    What it yields depends only on what it was sent. start: the first load, or the next lower one of
    `loads`. repeats: at least 2. budget: the most probes, at least 1.
    """
    search = _Search(loads, repeats, budget)
    first = max(0, bisect_right(loads, start) - 1)
    try:
        ending, answer = yield from search.run(first)
    except _BudgetEndedError:
        ending, answer = Ending.BUDGET, None
    return search.conclude(ending, answer)


class _BudgetEndedError(Exception):
    """No probe is left."""


class _Search:
    """The probes so far, and the steps. Loads are given by their position in `loads`."""

    def __init__(self, loads: Sequence[float], repeats: int, budget: int) -> None:
        self.loads = loads
        self.repeats = repeats
        self.budget = budget
        self.results: dict[int, list[bool]] = {}
        self.candidates: set[int] = set()

    def run(self, first: int) -> Generator[float, bool, tuple[Ending, int | None]]:
        low, high = yield from self.bracket(first)
        while True:
            low, high = yield from self.bisect(low, high)
            answer = None if low is None else (yield from self.confirm(low))
            was_given_up = answer != low
            if high is None or was_given_up:
                break
            if not (yield from self.overrule(high)):
                break
            low, high = yield from self.bracket(high)
        if answer is None:
            return Ending.NONE_VALID, None
        if answer == len(self.loads) - 1:
            return Ending.ALL_VALID, answer
        return Ending.FOUND, answer

    def bracket(self, first: int) -> Generator[float, bool, tuple[int | None, int | None]]:
        """Double or halve from `first` until the edge is enclosed.

        Returns a load that was VALID (None: not even the lowest one) and a higher one that was not
        (None: the highest one was VALID). Earlier probes count.
        """
        low = high = None
        position = first
        while True:
            if (yield from self.is_valid(position)):
                low = position
                known = [p for p, valid in self.results.items() if p > low and not all(valid)]
                high = min(known, default=None)
                if high is not None or low == len(self.loads) - 1:
                    return low, high
                doubled = bisect_right(self.loads, 2 * self.loads[low]) - 1
                position = max(doubled, low + 1)
            else:
                high = position
                if low is not None or high == 0:
                    return low, high
                halved = bisect_right(self.loads, self.loads[high] / 2) - 1
                position = max(0, min(halved, high - 1))

    def bisect(
        self, low: int | None, high: int | None
    ) -> Generator[float, bool, tuple[int | None, int | None]]:
        if low is None or high is None:
            return low, high
        while high - low > 1:
            middle = (low + high) // 2
            if (yield from self.is_valid(middle)):
                low = middle
            else:
                high = middle
        return low, high

    def confirm(self, position: int) -> Generator[float, bool, int | None]:
        """The highest load up to `position` that is VALID `repeats` times, and never INVALID."""
        while position >= 0:
            results = self.results.setdefault(position, [])
            if all(results):
                self.candidates.add(position)
                while len(results) < self.repeats and (yield from self.probe(position)):
                    pass
                if all(results):
                    return position
            position -= 1
        return None

    def overrule(self, position: int) -> Generator[float, bool, bool]:
        """Probe a load again whose only probe was INVALID; whether it is VALID more often than not.

        A load that is INVALID twice is not probed a third time.
        """
        results = self.results[position]
        while len(results) < 3 and results.count(False) < 2:
            yield from self.probe(position)
        return results.count(True) > results.count(False)

    def is_valid(self, position: int) -> Generator[float, bool, bool]:
        """Whether a load is VALID by its probes so far, or by a first one."""
        results = self.results.get(position) or [(yield from self.probe(position))]
        return results.count(True) > results.count(False)

    def probe(self, position: int) -> Generator[float, bool, bool]:
        if not self.budget:
            raise _BudgetEndedError
        self.budget -= 1
        valid = yield self.loads[position]
        self.results.setdefault(position, []).append(valid)
        return valid

    def conclude(self, ending: Ending, answer: int | None) -> Answer:
        probed = sorted(position for position, results in self.results.items() if results)
        counts = {
            self.loads[p]: Count(self.results[p].count(True), len(self.results[p])) for p in probed
        }
        edge = [p for p in (answer, None if answer is None else answer + 1) if p in self.results]
        again = sum(len(self.results[p]) - 1 for p in edge)
        return Answer(
            ending,
            None if answer is None else self.loads[answer],
            counts,
            len(self.candidates),
            probed[-1] - probed[0] + 1 + again,
        )
