import time

import numpy as np
import pytest

from ck_mlperf.loadgen.engines import Engine
from ck_mlperf.loadgen.engines.null import NullEngine
from ck_mlperf.loadgen.estimate import measure_query, measure_rate, needs_estimate, set_estimate
from ck_mlperf.loadgen.loadgen_settings import build_loadgen_settings
from ck_mlperf.loadgen.settings import RunSettings

IMAGES = np.zeros((40, 2, 2, 3), np.uint8)


class SleepingEngine(Engine):
    """Takes 1 ms a batch and 1 ms a sample, the first time ten times as long."""

    name = "sleeping"

    def __init__(self) -> None:
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
        time.sleep((0.001 + 0.001 * len(rows)) * (1 if self.batches else 10))
        self.batches.append(len(rows))

    def collect(self):
        return np.zeros(self.batches[-1], np.int32)


def test_the_best_of_several_queries_counts():
    engine = SleepingEngine()
    seconds = measure_query(engine, IMAGES, samples=20, batch_size=8)
    assert engine.batches[:3] == [8, 8, 4]
    assert 0.023 <= seconds < 0.06
    assert engine.loaded == 0


def test_a_query_may_be_larger_than_the_data_set():
    engine = SleepingEngine()
    measure_query(engine, IMAGES[:3], samples=8, batch_size=8)
    assert engine.batches[0] == 8


class OverlappingEngine(SleepingEngine):
    """Takes 4 ms to copy a batch and 4 ms to compute it, two batches at a time."""

    depth = 2

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []
        self.free_at = 0.0

    def enqueue(self, rows) -> None:
        assert len(self.ends) < self.depth
        self.free_at = max(self.free_at, time.perf_counter() + 0.004) + 0.004
        self.ends.append(self.free_at)
        self.batches.append(len(rows))

    def collect(self):
        time.sleep(max(self.ends.pop(0) - time.perf_counter(), 0))
        return np.zeros(self.batches[-1], np.int32)


def test_a_rate_is_that_of_batches_in_flight_together():
    engine = OverlappingEngine()
    rate = measure_rate(engine, IMAGES, batch_size=10)
    assert engine.loaded == 0
    assert not engine.ends
    assert 1400 < rate < 2700  # 2500; one at a time 1250


def test_a_rate_of_one_at_a_time_is_the_best():
    rate = measure_rate(SleepingEngine(), IMAGES, batch_size=9)
    assert 300 < rate < 900


@pytest.mark.parametrize(
    ("settings", "name", "low", "high"),
    [
        (dict(scenario="MultiStream"), "multi_stream_expected_latency_ns", 5e6, 1.2e7),
        (dict(scenario="Offline"), "offline_expected_qps", 1100, 2700),
        (dict(scenario="Server"), "server_target_qps", 350, 750),
    ],
)
def test_several_engines_are_measured_at_the_same_time(settings, name, low, high):
    # The figures of one engine in the next test, by 2 or 3.
    settings = RunSettings(batch_size=9, mode="PerformanceOnly", **settings)
    test = build_loadgen_settings(settings)
    engines = [SleepingEngine() for _ in range(3 if settings.scenario != "MultiStream" else 2)]
    started = time.perf_counter()
    set_estimate(test, settings, engines, IMAGES, 5e6)
    assert low <= getattr(test, name) <= high
    assert time.perf_counter() - started < 0.8  # 0.3 s, not 0.3 s each


@pytest.mark.parametrize(
    ("settings", "name", "low", "high"),
    [
        (dict(scenario="SingleStream"), "single_stream_expected_latency_ns", 2e6, 5e6),
        (dict(scenario="MultiStream"), "multi_stream_expected_latency_ns", 9e6, 3e7),
        (dict(scenario="Offline", batch_size=9), "offline_expected_qps", 300, 900),
        (dict(scenario="Server", batch_size=9), "server_target_qps", 100, 250),
    ],
)  # fmt: skip
def test_what_loadgen_is_told(settings, name, low, high):
    settings = RunSettings(**{"batch_size": 9, "mode": "PerformanceOnly"} | settings)
    test = build_loadgen_settings(settings)
    set_estimate(test, settings, [SleepingEngine()], IMAGES, 5e6)
    assert low <= getattr(test, name) <= high


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
        (dict(scenario="Server", mode="FindPeakPerformance"), False),
        (dict(scenario="Offline", mode="AccuracyOnly"), False),
    ],
)
def test_what_the_user_gave_is_not_measured(settings, needed):
    assert needs_estimate(RunSettings(**{"mode": "PerformanceOnly"} | settings)) == needed


def test_an_engine_that_takes_no_time_is_not_faster_than_loadgen():
    settings = RunSettings(scenario="Offline", mode="PerformanceOnly", batch_size=32)
    test = build_loadgen_settings(settings)
    set_estimate(test, settings, [NullEngine(), NullEngine()], IMAGES, 5e6)
    assert test.offline_expected_qps == 5e6
