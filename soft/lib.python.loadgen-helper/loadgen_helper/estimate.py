"""How fast the engine is, measured before the test, for what the user left open.

LoadGen makes a test's queries ahead: as many as fill the duration at the latency (SingleStream,
MultiStream) or the rate (Offline) that it is told to expect. Its own expectations fit no machine,
and a test that runs out of queries is INVALID. No rule depends on these figures. Server's rate is
what is tested there, and 1 query/s, LoadGen's own, tests nothing: half of what the engine does one
by one is a load that it should bear.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .engines import Engine
    from .settings import RunSettings

_SPEND_S = 0.3
_SERVER_SHARE = 0.5
_FEWEST = 2  # the first may be slow
# A query costs this much even with an engine that does nothing.
_LEAST_LATENCY_S = 1e-6


def needs_estimate(settings: RunSettings) -> bool:
    """Whether the expected latency or rate matters and the user has not given it."""
    if settings.mode in ("AccuracyOnly", "FindPeakPerformance"):
        return False
    if settings.scenario in ("Server", "Offline"):
        return settings.target_qps is None and "target_qps" not in settings.conf
    return settings.target_latency_ms is None and "target_latency" not in settings.conf


def set_estimate(
    test: Any, settings: RunSettings, engine: Engine, images: NDArray[np.uint8]
) -> None:
    """Measure the open `engine` and set what LoadGen's TestSettings `test` should expect."""
    assert settings.batch_size is not None
    samples = 1
    if settings.scenario == "Offline":
        samples = settings.batch_size
    elif settings.scenario == "MultiStream":
        samples = test.multi_stream_samples_per_query
    seconds = measure_query(engine, images, samples, settings.batch_size)
    test.single_stream_expected_latency_ns = seconds * 1e9
    test.multi_stream_expected_latency_ns = seconds * 1e9
    test.offline_expected_qps = samples / seconds
    test.server_target_qps = _SERVER_SHARE / seconds


def measure_query(
    engine: Engine, images: NDArray[np.uint8], samples: int, batch_size: int
) -> float:
    """The least time in seconds that the open `engine` took for a query of `samples`."""
    engine.load(images[:samples])
    rows = [sample % min(samples, len(images)) for sample in range(samples)]
    batches = [rows[begin : begin + batch_size] for begin in range(0, samples, batch_size)]
    best, runs, end = math.inf, 0, time.perf_counter() + _SPEND_S
    while runs < _FEWEST or time.perf_counter() < end:
        start = time.perf_counter()
        for batch in batches:
            engine.enqueue(batch)
            engine.collect()
        best = min(best, time.perf_counter() - start)
        runs += 1
    engine.unload()
    return max(best, _LEAST_LATENCY_S)
