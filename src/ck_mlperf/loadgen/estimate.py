"""The engine's speed, measured before the test, where the user gave no latency or rate.

LoadGen generates a test's queries in advance: as many as fill the duration at the latency
(SingleStream, MultiStream) or the rate (Offline) that it is told to expect. Its defaults fit no
machine, and a test that runs out of queries is INVALID. No rule depends on these figures. In Server
the rate is what is tested, and LoadGen's default of 1 query/s tests nothing: half of the rate at
which the engine answers single queries is a load that it should bear. FindPeakPerformance begins at
an eighth: LoadGen gives up where the first rate is too high, and doubles it in a moment. Several
engines are measured
at the same time, because they share the processor, memory and links; their rates are added.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.parallel import map_parallel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ck_mlperf.loadgen.engines import Engine
    from ck_mlperf.loadgen.resolve import ResolvedSettings
    from ck_mlperf.loadgen.settings import RunSettings

Clock = Callable[[], float]
"""Seconds, like time.perf_counter."""

_SPEND_S = 0.3
_SERVER_SHARE = 0.5
_PEAK_SHARE = 0.125
_FEWEST = 2  # the first may be slow
# A query costs this much even with an engine that does nothing.
_LEAST_LATENCY_S = 1e-6


def needs_estimate(settings: RunSettings) -> bool:
    """Whether the expected latency or rate matters and the user has not given it."""
    if settings.mode == "AccuracyOnly":
        return False
    if settings.scenario in ("Server", "Offline"):
        return settings.target_qps is None and "target_qps" not in settings.conf
    return settings.target_latency_ms is None and "target_latency" not in settings.conf


def set_estimate(
    test: Any,
    settings: ResolvedSettings,
    engines: Sequence[Engine],
    images: NDArray[np.uint8],
    most_samples_per_s: float,
    clock: Clock = time.perf_counter,
) -> None:
    """Measure the open `engines` and set what LoadGen's TestSettings `test` should expect.

    most_samples_per_s: `Interface.most_samples_per_s`.
    """
    batch_size = settings.batch_size
    if settings.scenario == "Offline":
        rates = map_parallel(
            lambda engine: measure_rate(engine, images, batch_size, clock), engines
        )
        test.offline_expected_qps = min(sum(rates), most_samples_per_s)
        return
    samples = 1
    if settings.scenario == "MultiStream":  # each engine has its share of a query
        samples = math.ceil(test.multi_stream_samples_per_query / len(engines))
    times = map_parallel(
        lambda engine: measure_query(engine, images, samples, batch_size, clock), engines
    )
    test.single_stream_expected_latency_ns = min(times) * 1e9
    test.multi_stream_expected_latency_ns = min(times) * 1e9
    share = _PEAK_SHARE if settings.mode == "FindPeakPerformance" else _SERVER_SHARE
    test.server_target_qps = share * sum(1 / seconds for seconds in times)


def measure_query(
    engine: Engine,
    images: NDArray[np.uint8],
    samples: int,
    batch_size: int,
    clock: Clock = time.perf_counter,
) -> float:
    """The least time in seconds that the open `engine` took for a query of `samples`."""
    rows = [sample % min(samples, len(images)) for sample in range(samples)]
    batches = [rows[begin : begin + batch_size] for begin in range(0, samples, batch_size)]
    engine.prepare(sorted({len(batch) for batch in batches}))
    engine.load(images[:samples])
    best, runs, end = math.inf, 0, clock() + _SPEND_S
    while runs < _FEWEST or clock() < end:
        start = clock()
        _run_batches(engine, batches)
        best = min(best, clock() - start)
        runs += 1
    engine.unload()
    return max(best, _LEAST_LATENCY_S)


def _run_batches(engine: Engine, batches: Sequence[Sequence[int]]) -> None:
    in_flight = 0
    for batch in batches:
        if in_flight == engine.depth:
            engine.collect()
            in_flight -= 1
        engine.enqueue(batch)
        in_flight += 1
    for _ in range(in_flight):
        engine.collect()


def measure_rate(
    engine: Engine,
    images: NDArray[np.uint8],
    batch_size: int,
    clock: Clock = time.perf_counter,
) -> float:
    """The highest rate in samples/s that the open `engine` kept up over some batches of
    `batch_size`, with as many in flight as it takes."""
    engine.prepare([batch_size])
    engine.load(images[:batch_size])
    rows = [sample % min(batch_size, len(images)) for sample in range(batch_size)]
    # Batches in flight together may end together, so the rate is taken over more of them.
    window = 1 if engine.depth == 1 else 2 * engine.depth
    ended = deque([clock()], maxlen=window + 1)
    best, batches, end = math.inf, 0, ended[0] + _SPEND_S
    for _ in range(engine.depth - 1):
        engine.enqueue(rows)
    while batches < _FEWEST * window or clock() < end:
        engine.enqueue(rows)
        engine.collect()
        batches += 1
        ended.append(clock())
        if batches >= window:
            best = min(best, ended[-1] - ended[0])
    for _ in range(engine.depth - 1):
        engine.collect()
    engine.unload()
    return window * batch_size / max(best, _LEAST_LATENCY_S)
