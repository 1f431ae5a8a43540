import json

import numpy as np
import pytest

from ck_mlperf.analyze.compare import compare_points, compare_values, describe_comparison
from ck_mlperf.analyze.runs import group_points
from ck_mlperf.common.errors import UserError

TRIALS = 300


def draw_normal(generator, n):
    return 1000 * np.exp(0.02 * generator.standard_normal(n))


def draw_skewed(generator, n):
    return 1000 * (1 - 0.02 * generator.exponential(size=n)).clip(0.5)


def draw_with_outliers(generator, n):
    slowed = generator.random(n) < 0.15
    return 1000 * np.exp(0.005 * generator.standard_normal(n) - 0.1 * slowed)


def count_verdicts(draw, n_a, n_b, factor=1.0):
    """How often two systems are called different; b is `factor` times as fast."""
    generator = np.random.default_rng(1)
    verdicts = [
        compare_values(draw(generator, n_a), factor * draw(generator, n_b)).verdict
        for _ in range(TRIALS)
    ]
    return {name: verdicts.count(name) / TRIALS for name in ("faster", "slower")}


@pytest.mark.slow
@pytest.mark.parametrize("draw", [draw_normal, draw_skewed, draw_with_outliers])
@pytest.mark.parametrize(("n_a", "n_b"), [(3, 3), (4, 4), (5, 5), (3, 10)])
def test_equal_systems_are_rarely_called_different(draw, n_a, n_b):
    """In 5% at most; the bound is that with three standard errors of these trials."""
    wrong = count_verdicts(draw, n_a, n_b)
    assert sum(wrong.values()) < 0.05 + 3 * (0.05 * 0.95 / TRIALS) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("n", "factor"), [(3, 1.3), (5, 1.1)])
def test_a_real_difference_is_seen(n, factor):
    assert count_verdicts(draw_normal, n, n, factor)["faster"] > 0.8
    assert count_verdicts(draw_normal, n, n, 1 / factor)["slower"] > 0.8


@pytest.mark.slow
def test_the_interval_holds_the_ratio_as_often_as_it_says():
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(TRIALS):
        interval = compare_values(draw_normal(generator, 7), 1.5 * draw_normal(generator, 7))
        held += interval.low <= 1.5 <= interval.high
    assert held / TRIALS > 0.93


def test_the_same_runs_give_the_same_interval():
    a, b = [1.0, 1.1, 1.2, 1.3, 1.4], [2.0, 2.2, 2.1, 2.4, 2.3]
    assert compare_values(a, b) == compare_values(a, b)


def test_figures():
    interval = compare_values([100.0] * 5, [150.0] * 5)
    assert (interval.ratio, interval.low, interval.high) == pytest.approx((1.5, 1.5, 1.5))
    assert interval.verdict == "faster"
    slower = compare_values([100.0] * 5, [150.0] * 5, lower_is_better=True)
    assert slower.ratio == pytest.approx(1 / 1.5)
    assert slower.verdict == "slower"


@pytest.mark.parametrize(("n_a", "n_b"), [(0, 5), (1, 5), (2, 2), (5, 2)])
def test_fewer_than_three_runs_cannot_tell(n_a, n_b):
    assert compare_values([1.0] * n_a, [9.0] * n_b) is None


def make_point(row, values, column="latency_p99_ns", **columns):
    return [row(**{column: value, **columns}) for value in values]


def compare(a, b):
    return compare_points(group_points(a), group_points(b))


def test_points_pair_by_all_that_does_not_differ(row):
    sides = []
    for engine, factor in (("onnxruntime-cpu", 2.0), ("tensorrt", 1.0)):
        sides.append([])
        for batch in (1, 8):
            for precision in ("fp32", "fp16"):
                values = [factor * batch * x for x in (100.0, 101.0, 102.0, 103.0, 104.0)]
                sides[-1] += make_point(
                    row, values, engine=engine, batch=batch, precision=precision
                )
    sides[1] += make_point(row, [1.0, 2.0, 3.0], engine="tensorrt", batch=64)
    comparison = compare(*sides)
    assert comparison.differs == {"engine": (["onnxruntime-cpu"], ["tensorrt"])}
    assert [pair.interval.ratio for pair in comparison.pairs] == [pytest.approx(2.0)] * 4
    assert {pair.verdict for pair in comparison.pairs} == {"faster"}
    for pair in comparison.pairs:
        for name in ("batch", "precision"):
            assert pair.a.configuration[name] == pair.b.configuration[name]
    assert (comparison.only_a, comparison.only_b) == (0, 1)


def test_offline_is_compared_by_throughput(row):
    a = make_point(row, [10.0, 11.0, 12.0, 11.0, 11.0], "samples_per_second", scenario="Offline")
    b = make_point(row, [20.0, 21.0, 22.0, 21.0, 21.0], "samples_per_second", scenario="Offline")
    (pair,) = compare(a, b).pairs
    assert (pair.column, pair.verdict) == ("samples_per_second", "faster")


def test_points_with_several_partners_are_not_paired(row):
    a = make_point(row, [1.0, 2.0, 3.0], batch=1) + make_point(row, [1.0, 2.0, 3.0], batch=2)
    b = make_point(row, [1.0, 2.0, 3.0], batch=4)
    comparison = compare(a, b)
    assert comparison.differs == {"batch": ([1, 2], [4])}
    assert (comparison.pairs, comparison.only_a, comparison.only_b) == ([], 2, 1)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"scenario": "Offline"}, {"scenario": "SingleStream"}),
        ({"samples_per_query": 8}, {"samples_per_query": 16}),
        (
            {"scenario": "Server", "target_qps": 100.0},
            {"scenario": "Server", "target_qps": 101.0},
        ),
    ],
)
def test_other_loads_are_refused(row, a, b):
    with pytest.raises(UserError, match="not given the same load"):
        compare([row(**a)], [row(**b)])


def test_json_has_what_is_shown(row):
    a = make_point(row, [100.0, 101.0, 102.0])
    b = make_point(row, [50.0, 51.0], engine_version="2")
    found = json.loads(json.dumps(describe_comparison(compare(a, b))))
    assert found["differs"] == {"engine_version": {"a": [a[0].engine_version], "b": ["2"]}}
    (pair,) = found["pairs"]
    assert pair["configuration"]["batch"] == 32
    assert "engine_version" not in pair["configuration"]
    assert pair["a"]["median"] == 101
    assert pair["b"]["values"] == [50, 51]
    assert (pair["times_as_fast"], pair["interval_95"]) == (None, None)
    assert pair["verdict"] == "cannot tell"
    assert found["unpaired"] == {"a": 0, "b": 0}
