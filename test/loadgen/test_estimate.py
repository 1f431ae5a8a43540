"""What is measured before a test, on engines whose time is a clock of the test's own."""

import math
import threading

import numpy as np
import pytest

from ck_mlperf.loadgen.engines import Engine
from ck_mlperf.loadgen.engines.null import NullEngine
from ck_mlperf.loadgen.estimate import measure_query, measure_rate, needs_estimate, set_estimate
from ck_mlperf.loadgen.loadgen_settings import build_loadgen_settings
from ck_mlperf.loadgen.resolve import resolve_settings
from ck_mlperf.loadgen.settings import RunSettings

IMAGES = np.zeros((40, 2, 2, 3), np.uint8)


class Clock(threading.local):
    """Each thread has a time of its own, as if the engines ran beside each other."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def wait_until(self, time_s: float) -> None:
        self.now_s = max(self.now_s, time_s)


class PacedEngine(Engine):
    """Takes 1 ms a batch and 1 ms a sample, the first time ten times as long."""

    name = "paced"

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.loaded = 0
        self.batches: list[int] = []

    def open(self) -> None: ...

    def close(self) -> None: ...

    def load(self, images) -> None:
        self.loaded = len(images)

    def unload(self) -> None:
        self.loaded = 0

    def enqueue(self, rows) -> None:
        assert all(0 <= row < self.loaded for row in rows)
        self.clock.now_s += (0.001 + 0.001 * len(rows)) * (1 if self.batches else 10)
        self.batches.append(len(rows))

    def collect(self):
        return np.zeros(self.batches[-1], np.int32)


class OverlappingEngine(PacedEngine):
    """Takes 4 ms to copy a batch and 4 ms to compute it, two batches at a time."""

    depth = 2

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.ends: list[float] = []
        self.free_at = 0.0

    def enqueue(self, rows) -> None:
        assert len(self.ends) < self.depth
        self.free_at = max(self.free_at, self.clock() + 0.004) + 0.004
        self.ends.append(self.free_at)
        self.batches.append(len(rows))

    def collect(self):
        self.clock.wait_until(self.ends.pop(0))
        return np.zeros(self.batches[-1], np.int32)


@pytest.fixture
def clock():
    return Clock()


def test_the_best_of_several_queries_counts(clock):
    engine = PacedEngine(clock)
    seconds = measure_query(engine, IMAGES, samples=20, batch_size=8, clock=clock)
    assert engine.batches[:3] == [8, 8, 4]
    assert seconds == pytest.approx(0.023)
    assert len(engine.batches) > 3 * 2
    assert engine.loaded == 0


def test_a_query_may_be_larger_than_the_data_set(clock):
    engine = PacedEngine(clock)
    measure_query(engine, IMAGES[:3], samples=8, batch_size=8, clock=clock)
    assert engine.batches[0] == 8


def test_measuring_ends(clock):
    measure_query(PacedEngine(clock), IMAGES, samples=20, batch_size=8, clock=clock)
    query_s = clock()
    assert 0.3 <= query_s < 0.3 + 0.3  # and the query that it began
    measure_rate(PacedEngine(clock), IMAGES, batch_size=9, clock=clock)
    assert 0.3 <= clock() - query_s < 0.3 + 0.1


def test_a_rate_is_that_of_batches_in_flight_together(clock):
    engine = OverlappingEngine(clock)
    rate = measure_rate(engine, IMAGES, batch_size=10, clock=clock)
    assert engine.loaded == 0
    assert not engine.ends
    assert rate == pytest.approx(2500)  # one at a time 1250


def test_a_rate_of_one_at_a_time_is_the_best(clock):
    rate = measure_rate(PacedEngine(clock), IMAGES, batch_size=9, clock=clock)
    assert rate == pytest.approx(900)


def estimate(engines, clock=None, **settings):
    """LoadGen's settings after the estimate."""
    settings = RunSettings(**{"batch_size": 9, "mode": "PerformanceOnly"} | settings)
    resolved = resolve_settings(settings, len(IMAGES), None)
    test = build_loadgen_settings(resolved)
    set_estimate(test, resolved, engines, IMAGES, 5e6, **({"clock": clock} if clock else {}))
    return test


@pytest.mark.parametrize(
    ("scenario", "engines", "name", "value"),
    [
        ("SingleStream", 1, "single_stream_expected_latency_ns", 2e6),
        ("MultiStream", 1, "multi_stream_expected_latency_ns", 9e6),
        ("Offline", 1, "offline_expected_qps", 900),
        ("Server", 1, "server_target_qps", 250),
        ("MultiStream", 2, "multi_stream_expected_latency_ns", 5e6),
        ("Offline", 3, "offline_expected_qps", 2700),
        ("Server", 3, "server_target_qps", 750),
    ],
)
def test_what_loadgen_is_told(clock, scenario, engines, name, value):
    test = estimate([PacedEngine(clock) for _ in range(engines)], clock, scenario=scenario)
    assert getattr(test, name) == pytest.approx(value)


def test_the_search_for_the_peak_begins_where_the_bound_holds(clock):
    """Not at LoadGen's 1 query/s, from which it takes minutes; nor at a rate that may be late."""
    test = estimate([PacedEngine(clock)], clock, scenario="Server", mode="FindPeakPerformance")
    assert test.server_target_qps == pytest.approx(62.5)


class MeetingEngine(PacedEngine):
    """Its first batch ends once the others have begun theirs."""

    def __init__(self, clock: Clock, meeting: threading.Barrier) -> None:
        super().__init__(clock)
        self.meeting = meeting

    def enqueue(self, rows) -> None:
        if not self.batches:
            self.meeting.wait(60)  # raises if one is measured after the other
        super().enqueue(rows)


@pytest.mark.parametrize("scenario", ["MultiStream", "Offline", "Server"])
def test_several_engines_are_measured_at_the_same_time(clock, scenario):
    meeting = threading.Barrier(3)
    engines = [MeetingEngine(clock, meeting) for _ in range(3)]
    estimate(engines, clock, scenario=scenario)
    assert all(engine.batches for engine in engines)


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        (dict(scenario="SingleStream"), True),
        (dict(scenario="SingleStream", target_latency_ms=2.0), False),
        (dict(scenario="MultiStream", conf={"target_latency": 50}), False),
        (dict(scenario="Offline"), True),
        (dict(scenario="Offline", target_qps=10.0), False),
        (dict(scenario="Server", conf={"target_qps": 10}), False),
        (dict(scenario="Server"), True),
        (dict(scenario="Server", mode="FindPeakPerformance"), True),
        (dict(scenario="Server", mode="FindPeakPerformance", target_qps=5.0), False),
        (dict(scenario="Offline", mode="AccuracyOnly"), False),
    ],
)
def test_what_the_user_gave_is_not_measured(settings, needed):
    assert needs_estimate(RunSettings(**{"mode": "PerformanceOnly"} | settings)) == needed


def test_an_engine_that_takes_no_time_is_not_faster_than_loadgen():
    test = estimate([NullEngine(), NullEngine()], scenario="Offline", batch_size=32)
    assert test.offline_expected_qps == 5e6


def test_a_clock_that_is_too_coarse_gives_no_infinite_rate():
    ticks = iter([0.0] * 20 + [1.0] * 20)
    rate = measure_rate(NullEngine(), IMAGES, batch_size=8, clock=lambda: next(ticks))
    assert 0 < rate < math.inf
