import random

import pytest

from ck_mlperf.analyze.flags import TAIL_SPREAD, find_flags, measure_spread
from ck_mlperf.analyze.runs import group_points


def flag(runs):
    (point,) = group_points(runs)
    return find_flags(point)


def make(row, column, values):
    """Runs that differ in one column only."""
    return [row(**{column: value}) for value in values]


def test_runs_that_repeat_are_not_doubted(row):
    assert flag(make(row, "samples_per_second", [1000.0, 1020.0, 1049.0])) == []


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        (
            "samples_per_second",
            [2000.0, 2100.0, 2200.0],
            "throughput from 2,000 to 2,200 samples/s over 3 runs, 10% of the median",
        ),
        (
            "latency_p99_ns",
            [4_000_000, 5_000_000, 6_000_000],
            "99th percentile of the latency from 4 to 6 ms over 3 runs, 40% of the median",
        ),
        (
            "sm_clock_mhz",
            [1410, 1500, 1500],
            "the GPU's clock from 1,410 to 1,500 MHz over 3 runs, 6% of the median",
        ),
    ],
)
def test_runs_that_do_not_repeat(row, column, values, said):
    (found,) = flag(make(row, column, values))
    assert found.text == said


def test_single_stream_is_judged_by_its_90th_percentile(row):
    runs = [
        row(scenario="SingleStream", latency_p90_ns=p90, latency_p99_ns=1e6 * p90)
        for p90 in (1000, 1300, 1600)
    ]
    assert [found.kind for found in flag(runs)] == ["latency"]
    assert flag(make(row, "latency_p90_ns", [1, 2, 3])) == []


def test_offline_has_no_tail(row):
    runs = [row(scenario="Offline", latency_p99_ns=p99) for p99 in (1, 2, 3)]
    assert flag(runs) == []


def test_clocks_that_were_not_read(row):
    assert flag(make(row, "sm_clock_mhz", [None, None, 1410])) == []


def test_what_the_records_themselves_say(row):
    kinds = ("steal", "gpu_heat")
    runs = [
        row(),
        row(disturbance_kinds=kinds, disturbances=("stole 3.0%", "heat in 4 of 8 samples")),
        row(disturbance_kinds=kinds[:1], disturbances=("stole 5.5%",)),
    ]
    assert [found.text for found in flag(runs)] == [
        "in 2 of 3 runs: stole 3.0%",
        "in 1 of 3 runs: heat in 4 of 8 samples",
    ]


def test_verdicts_that_differ(row):
    (found,) = flag(make(row, "loadgen_valid", [True, False, True]))
    assert found.text == "LoadGen found 2 of 3 runs VALID, not all"


@pytest.mark.parametrize(("count", "said"), [(1, "1 run: "), (2, "2 runs: ")])
def test_too_few_runs_cannot_tell(row, count, said):
    (found,) = flag([row() for _ in range(count)])
    assert found.kind == "single"
    assert found.text.startswith(f"{said}cannot tell how well it repeats")


def test_the_bound_on_the_tail_is_what_chance_gives():
    """As its docstring says: three 99th percentiles of 662 queries each, five of them."""
    generator = random.Random(0)

    def draw_tail() -> float:
        return sorted(generator.expovariate(1) for _ in range(662))[655]

    for runs, wanted in ((3, 0.14), (5, TAIL_SPREAD)):
        spreads = [measure_spread([draw_tail() for _ in range(runs)]) for _ in range(150)]
        assert sum(spreads) / len(spreads) == pytest.approx(wanted, abs=0.025)


def test_a_rehearsal_is_called_one(row):
    (found,) = flag([row(explore_run=f"rehearsal-0123456789ab.r{number}") for number in (1, 2, 3)])
    assert found.text == "the rehearsal of a submission: seconds in place of minutes"
