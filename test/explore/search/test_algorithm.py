"""The search against simulated systems: how many runs it takes, and how often it is right."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Sequence

import pytest

from ck_mlperf.explore.search.algorithm import (
    CONFIDENCE,
    Answer,
    Count,
    Ending,
    list_counts,
    list_rates,
    search_largest,
)

RATES = list_rates(0.02)
SEEDS = range(400)


def drive(
    loads: Sequence[float],
    start: float,
    is_valid: Callable[[float], bool],
    repeats: int = 3,
    budget: int = 60,
) -> tuple[Answer, list[float]]:
    """The answer on a system, and the loads that were run, in their order."""
    search, asked = search_largest(loads, start, repeats, budget), []
    try:
        asked.append(next(search))
        while True:
            asked.append(search.send(is_valid(asked[-1])))
    except StopIteration as ended:
        return ended.value, asked


class NoisySystem:
    """A run is VALID with a chance that falls with the load, over `width` steps, through 1/2."""

    def __init__(self, seed: int, width: float, accidents: float = 0) -> None:
        self.random = random.Random(seed)
        self.edge = self.random.uniform(500, 700)
        self.width, self.accidents = width, accidents
        # As a start that was measured: half of a rate that is not far from the edge.
        self.start = RATES[int(self.edge + self.random.uniform(-35, 30))]

    def chance(self, load: float) -> float:
        steps = (RATES.index(load) - self.edge) / self.width
        return (1 - self.accidents) / (1 + math.exp(min(steps, 500)))

    def __call__(self, load: float) -> bool:
        return self.random.random() < self.chance(load)


def drive_many(width: float, repeats: int = 3, accidents: float = 0):
    systems = [NoisySystem(seed, width, accidents) for seed in SEEDS]
    return [(system, drive(RATES, system.start, system, repeats)[0]) for system in systems]


def test_a_sharp_edge_is_found_exactly_with_a_third_of_the_runs():
    for system, answer in drive_many(width=0.01):
        assert answer.ending is Ending.FOUND
        assert -1.1 < RATES.index(answer.load) - system.edge < 0.1
        assert answer.above == RATES[RATES.index(answer.load) + 1]
        assert answer.counts[answer.load] == Count(3, 3)
        assert answer.runs <= answer.grid_runs / 3


@pytest.mark.parametrize(
    ("width", "accidents", "share", "steps_below"),
    [
        (0.5, 0, 1 / 3, 3),
        (1, 0, 1 / 3, 4),
        (2, 0, 0.36, 7),
        (4, 0, 0.40, 11),
        (0.5, 0.03, 1 / 3, 4),
    ],
)
def test_a_noisy_edge(width, accidents, share, steps_below):
    """From 10% to 90%, an edge of width w goes over 4.4 w steps of 2%."""
    found = drive_many(width, accidents=accidents)
    assert all(answer.ending is Ending.FOUND for _, answer in found)
    # As much less work than a grid that runs each load but those at its edge a single time.
    assert statistics.mean(f.runs for _, f in found) <= share * statistics.mean(
        f.grid_runs for _, f in found
    )
    kept = [s.chance(f.load) >= f.least_chance for s, f in found]
    assert statistics.mean(kept) >= CONFIDENCE
    errors = sorted(RATES.index(f.load) - s.edge for s, f in found)
    assert errors[len(errors) // 10] > -steps_below
    assert errors[-len(errors) // 10] < width


@pytest.mark.parametrize("width", [0.5, 2, 8])
def test_more_repeats_make_a_safer_answer(width):
    chances = [
        statistics.mean(
            system.chance(answer.load) if answer.load else 1
            for system, answer in drive_many(width, repeats)
        )
        for repeats in (2, 3, 8)
    ]
    assert chances == sorted(chances)
    assert chances[-1] > 0.05 ** (1 / 8)


def test_the_bound_is_that_of_clopper_and_pearson():
    def answer(runs: int, candidates: int) -> Answer:
        return Answer(Ending.FOUND, 7, {7: Count(runs, runs)}, candidates, 1)

    # The one-sided bound for n of n is a**(1/n): the chance with which all n are VALID at it is a.
    assert answer(3, 1).least_chance == pytest.approx(0.3684, abs=1e-4)
    assert answer(5, 1).least_chance == pytest.approx(0.5493, abs=1e-4)
    assert answer(59, 1).least_chance > 0.95 > answer(58, 1).least_chance
    assert answer(3, 2).least_chance == pytest.approx(0.025 ** (1 / 3))


def test_an_accident_below_the_edge_is_overruled():
    asked: list[float] = []

    def is_valid(load):
        asked.append(load)
        return load <= 1000 and len(asked) != 1

    answer, _ = drive(RATES, 400, is_valid)
    assert asked[0] < 401
    assert 1000 / 1.02 < answer.load <= 1000


def test_one_valid_far_above_the_edge_is_given_up():
    asked: list[float] = []

    def is_valid(load):
        asked.append(load)
        return load <= 100 or len(asked) == 3

    answer, _ = drive(list_counts(1000), 64, is_valid, budget=400)
    assert answer.load == 100
    assert answer.counts[101].valid < answer.counts[101].runs


@pytest.mark.parametrize(("edge", "start"), [(1, 8), (2, 1), (8, 8), (37, 8), (999, 8), (5, 1000)])
def test_whole_numbers(edge, start):
    answer, asked = drive(list_counts(1000), start, lambda load: load <= edge)
    assert (answer.ending, answer.load, answer.above) == (Ending.FOUND, edge, edge + 1)
    assert str(answer.counts[edge]) == "VALID in 3 of 3"
    assert str(answer.counts[edge + 1]) == "VALID in 0 of 2"
    assert len(asked) == answer.runs


def test_ends_of_the_range():
    answer, asked = drive(list_counts(64), 64, lambda load: True)
    assert (answer.ending, answer.load, answer.above) == (Ending.ALL_VALID, 64, None)
    assert asked == [64, 64, 64]
    answer, asked = drive(list_counts(64), 8, lambda load: False)
    assert (answer.ending, answer.load, answer.least_chance) == (Ending.NONE_VALID, None, None)
    assert asked == [8, 4, 2, 1, 1]
    assert answer.counts[1] == Count(0, 2)
    answer, asked = drive([5], 5, lambda load: True)
    assert (answer.ending, answer.load) == (Ending.ALL_VALID, 5)


def test_used_up_is_no_answer():
    for budget in range(1, 13):
        answer, asked = drive(list_counts(1000), 8, lambda load: load <= 300, budget=budget)
        assert (answer.ending, answer.load) == (Ending.BUDGET, None)
        assert len(asked) == answer.runs == budget
    system = NoisySystem(1, width=1000)
    assert drive(RATES, system.start, system, repeats=50)[0].ending is Ending.BUDGET


def test_the_same_answers_lead_the_same_way():
    """What a search asks for depends on the answers alone, so that it can go on after a kill."""
    first, asked = drive(RATES, 250, NoisySystem(3, 2))
    again, asked_again = drive(RATES, 250, NoisySystem(3, 2))
    assert (first, asked) == (again, asked_again)
    # A start in between two loads is that of the lower one.
    between = (RATES[300] + RATES[301]) / 2
    assert drive(RATES, between, NoisySystem(3, 2)) == drive(RATES, RATES[300], NoisySystem(3, 2))


def test_rates_and_counts():
    rates = list_rates(0.02, 100, 200)
    assert rates == [rate for rate in RATES if 100 <= rate <= 200]
    assert all(1.019 < b / a < 1.021 for a, b in itertools.pairwise(rates))
    assert len({*list_rates(0.001)}) == len(list_rates(0.001))
    assert list_counts(5) == [1, 2, 3, 4, 5]
    assert list_counts(1) == [1]
    coarse = list_counts(1000, 0.1)
    assert coarse[:12] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert coarse[-1] == 1000
    assert all(b <= max(a + 1, 1.1 * a) for a, b in itertools.pairwise(coarse))
