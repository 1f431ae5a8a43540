"""When the samples that wait become a batch, and of which size: decided without threads or clocks.

Whoever runs the device asks its policy, and tells it what was started and finished. Times are in
seconds of any monotonic clock.
"""

from __future__ import annotations

import abc
import bisect
import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

# How long before the device should be free the next batch is enqueued: the time to wake up, gather
# and enqueue (a timed wait in Python ends 0.1 ms late), and a share of the expected time for its
# error.
_LEAD_S = 0.2e-3
_LEAD_SHARE = 0.15
_SMOOTHING = 8  # batches: a new measurement counts an eighth
_MOST_JUMP = 2  # a measurement counts as at most twice what was expected: it may be a hiccup


class Decision(NamedTuple):
    """What to do now. Both 0: complete what is in flight, or sleep."""

    samples: int
    """How many to start as one batch; 0: none now."""
    wait_s: float
    """With no samples: ask again after this time, or once a whole batch waits."""


class BatchPolicy(abc.ABC):
    """Forms the batches of one device."""

    @abc.abstractmethod
    def decide(self, now: float, waiting: int, oldest: float) -> Decision:
        """What to do at `now`, where `waiting` samples wait, the oldest since `oldest`.

        Called only while the engine takes another batch. Where none waits `oldest` has no meaning.
        """

    def arrived(self, samples: int) -> None:  # noqa: B027
        """A query of `samples` came in."""

    def started(self, now: float, samples: int) -> None:  # noqa: B027
        """The device was given a batch."""

    def finished(self, now: float) -> None:  # noqa: B027
        """The oldest batch in flight is done."""


class EagerBatches(BatchPolicy):
    """Starts batches of `most` at once: for queries that come whole and are timed to their end.

    A query that is too small for a whole batch on each device is cut into as many equal batches as
    there are `devices`.
    """

    def __init__(self, most: int, devices: int) -> None:
        self._most = self._size = most
        self._devices = devices

    def decide(self, now: float, waiting: int, oldest: float) -> Decision:
        return Decision(min(waiting, self._size), 0)

    def arrived(self, samples: int) -> None:
        self._size = min(self._most, math.ceil(samples / self._devices))


class DeadlineBatches(BatchPolicy):
    """For samples that come one by one, each with `bound_s` seconds from its arrival: Server.

    - An idle device gets what waits at once: a lone sample is not delayed.
    - While the device computes `at_once` batches, the next is held back, to grow, until it is full
      or one of those is about to end. Enqueued then, it starts without a gap; enqueued earlier, it
      would not start sooner.
    - The oldest sample's bound, less the time of its own batch, ends the holding too.
    - A GPU engine pads a batch to the next of the `sizes` that it is prepared for, and computes the
      padding. So a batch of another size is cut to the size below, and the rest goes into the next
      one. For an engine that takes every size alike this costs next to nothing.

    The time of a batch is measured per size. Until it is known nothing is held back. Where the
    expectation is too short, a batch goes early, as without a policy. Where it is too long, the
    worker finds the batch done when the holding ends, and the next expectation is shorter.
    """

    def __init__(self, sizes: Sequence[int], bound_s: float, at_once: int = 1) -> None:
        """sizes: from 1 up, rising, as of `list_sizes`; the last is the most of a batch.

        at_once: how many batches the device computes at a time.
        """
        self._sizes = sizes
        self._at_once = at_once
        self._most = sizes[-1]
        self._bound_s = bound_s
        self._in_flight: deque[tuple[int, float]] = deque()  # samples, start
        self._free_at = 0.0
        self._finished_at = 0.0
        self._seconds_by_size: dict[int, float] = {}

    def decide(self, now: float, waiting: int, oldest: float) -> Decision:
        if waiting >= self._most:
            return Decision(self._most, 0)
        if len(self._in_flight) < self._at_once:
            return Decision(self._cut(waiting), 0)
        if len(self._in_flight) > self._at_once:  # one waits on the device already
            return Decision(0, 0)
        # The device takes one more when the oldest ends.
        later = sum(self._expect(samples) for samples, _ in list(self._in_flight)[1:])
        samples, _ = self._in_flight[0]
        until = self._free_at - later - _LEAD_S - _LEAD_SHARE * self._expect(samples)
        if waiting:
            until = min(until, oldest + self._bound_s - self._expect(waiting) - _LEAD_S)
        if now < until:
            return Decision(0, until - now)
        return Decision(self._cut(waiting), 0)

    def started(self, now: float, samples: int) -> None:
        self._free_at = max(self._free_at, now) + self._expect(samples)
        self._in_flight.append((samples, now))

    def finished(self, now: float) -> None:
        samples, start = self._in_flight.popleft()
        self._learn(samples, now - max(start, self._finished_at))
        self._finished_at = now
        self._free_at = now + sum(self._expect(samples) for samples, _ in self._in_flight)

    def _expect(self, samples: int) -> float:
        """The time of a batch; for a size not seen yet, that of the next smaller one."""
        size = self._cut(samples)
        known = self._seconds_by_size
        if size not in known:
            size = max((smaller for smaller in known if smaller < size), default=0)
        return known.get(size, 0.0)

    def _learn(self, samples: int, seconds: float) -> None:
        size = self._cut(samples)
        expected = self._seconds_by_size.get(size)
        if expected is not None:
            step = min(seconds, _MOST_JUMP * expected) - expected
            seconds = expected + step / _SMOOTHING
        self._seconds_by_size[size] = seconds

    def _cut(self, samples: int) -> int:
        """The largest of the sizes up to `samples`; 0 for 0."""
        place = bisect.bisect_right(self._sizes, samples)
        return self._sizes[place - 1] if place else 0


def list_sizes(most: int) -> list[int]:
    """The sizes that a device is prepared for where batches of any size may come.

    1 to 8, then four to each doubling (10, 12, 14, 16, 20, ...), and `most`: padding to the next of
    them adds at most a quarter.
    """
    sizes = [size for size in range(1, most) if size % (1 << max(size.bit_length() - 3, 0)) == 0]
    return [*sizes, most]
