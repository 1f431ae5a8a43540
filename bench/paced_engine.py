"""An engine that keeps the time of a GPU without one, and without using the processor."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ck_mlperf.loadgen.engines.null import NullEngine


class PacedEngine(NullEngine):
    """Answers 0, `samples_per_s` at most; a batch that was queued ahead starts without a gap."""

    name = "paced"
    depth = 3

    def __init__(self, samples_per_s: float) -> None:
        super().__init__()
        self._seconds_per_sample = 1 / samples_per_s
        self._free_at = 0.0
        self._in_flight: deque[tuple[float, int]] = deque()  # when it is done, samples

    def enqueue(self, rows: Sequence[int]) -> None:
        start = max(time.monotonic(), self._free_at)
        self._free_at = start + len(rows) * self._seconds_per_sample
        self._in_flight.append((self._free_at, len(rows)))

    def collect(self) -> NDArray[np.int32]:
        done_at, count = self._in_flight.popleft()
        time.sleep(max(0.0, done_at - time.monotonic()))
        super().enqueue(range(count))
        return super().collect()
