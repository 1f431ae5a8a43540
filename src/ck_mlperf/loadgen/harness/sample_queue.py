"""Samples that wait for a batch, in the order of their arrival."""

from __future__ import annotations

from collections import deque

from ck_mlperf.loadgen.harness.interface import Ids, Indices


class SampleQueue:
    """Not safe for several threads: its user has a lock."""

    def __init__(self) -> None:
        self._ids: Ids = []
        self._indices: Indices = []
        self._begin = 0
        """Samples before this one are taken. Lists give them back once there are many."""
        self._arrivals: deque[list[float]] = deque()  # time, samples
        self.count = 0
        """Samples that wait."""

    @property
    def oldest(self) -> float:
        """When the oldest that waits arrived, in seconds; 0 where none waits."""
        return self._arrivals[0][0] if self._arrivals else 0.0

    def add(self, ids: Ids, indices: Indices, now: float) -> None:
        """Put samples at the end. Into an empty queue they go without a copy, lists or arrays; to
        others only lists can be added, and only where those are lists too."""
        if not len(ids):
            return
        if self.count:
            assert isinstance(self._ids, list)
            assert isinstance(self._indices, list)
            self._ids.extend(ids)
            self._indices.extend(indices)
        else:
            self._ids, self._indices, self._begin = ids, indices, 0
        self._arrivals.append([now, len(ids)])
        self.count += len(ids)

    def take(self, count: int) -> tuple[Ids, Indices]:
        """Remove the `count` oldest samples; copies of their ids and indices."""
        begin, end = self._begin, self._begin + count
        ids, indices = self._ids[begin:end], self._indices[begin:end]
        self._begin = end
        self.count -= count
        if not isinstance(ids, list):
            ids, indices = ids.copy(), indices.copy()
        elif end * 8 > len(self._ids):
            del self._ids[:end], self._indices[:end]
            self._begin = 0
        while count:
            arrival = self._arrivals[0]
            taken = min(count, int(arrival[1]))
            arrival[1] -= taken
            count -= taken
            if not arrival[1]:
                self._arrivals.popleft()
        return ids, indices

    def take_all(self) -> Ids:
        """Remove all samples; their ids."""
        return self.take(self.count)[0]
