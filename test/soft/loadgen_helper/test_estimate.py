import time

import numpy as np
import pytest
from loadgen_helper.engines import Engine
from loadgen_helper.estimate import measure_query, needs_estimate, set_estimate
from loadgen_helper.run import build_loadgen_settings
from loadgen_helper.settings import RunSettings

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
    set_estimate(test, settings, SleepingEngine(), IMAGES)
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
