"""The end of a test that does not come to one: its engine hangs, or answers next to nothing."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

from ck_mlperf.common.errors import UserError

# Without an answer for so long an engine hangs. Nobody would wait for one that takes 2 s a sample.
_SILENCE_S, _SILENCE_S_PER_SAMPLE = 600.0, 2.0
_POLLS = 20
_MOST_POLL_S = 5.0
# What LoadGen gets to end by itself, once every query is answered at once.
_GRACE_S = 20.0


def allow_silence(batch_size: int) -> float:
    """How long an engine may be without an answer, in seconds."""
    return _SILENCE_S + _SILENCE_S_PER_SAMPLE * batch_size


class TimeLimit:
    """Within the block, ends the test when it has taken too long, or has been silent for too long.

    A test's length is not known beforehand: MLPerf asks for a number of queries however slow they
    are. So the whole test has a limit only where the user sets one. What is always limited is the
    time without an answer. The test is then told to fail, which answers every query at once; where
    the engine does not come back even so, the process is ended with status 2.
    """

    def __init__(
        self,
        timeout_s: float | None,
        silence_s: float,
        grace_s: float = _GRACE_S,
        end: Callable[[str], object] | None = None,
    ) -> None:
        """timeout_s: CK_TIMEOUT. silence_s: without an answer. grace_s, end: for tests; `end` is
        called in place of an exit."""
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._grace_s = grace_s
        self._end = end or _end_process
        self._count: Callable[[], int] = lambda: 0
        self._fail: Callable[[BaseException], None] = lambda error: None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="time limit", daemon=True)

    def follow(self, count: Callable[[], int], fail: Callable[[BaseException], None]) -> None:
        """From now on the test counts its answers by `count`, and can be told to `fail`."""
        self._count, self._fail = count, fail

    def __enter__(self) -> TimeLimit:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        shortest = min(self._silence_s, self._timeout_s or self._silence_s)
        poll_s = min(_MOST_POLL_S, shortest / _POLLS)
        started = heard = time.monotonic()
        answers = 0
        while not self._is_over.wait(poll_s):
            now, count = time.monotonic(), self._count()
            if count != answers:
                heard, answers = now, count
            reason = self._judge(now - started, now - heard, answers)
            if reason:
                self._fail(UserError(reason))
                if not self._is_over.wait(self._grace_s):
                    self._end(reason)
                return

    def _judge(self, taken_s: float, silent_s: float, answers: int) -> str | None:
        if self._timeout_s is not None and taken_s > self._timeout_s:
            return (
                f"the test was ended after CK_TIMEOUT={self._timeout_s:g} s, with {answers:,} "
                "samples answered. Set a longer one, or leave it out"
            )
        if silent_s > self._silence_s:
            return (
                f"the test was ended: the engine has answered nothing for {silent_s:,.0f} s, after "
                f"{answers:,} samples. It hangs, or a batch takes longer than that: lower "
                "CK_BATCH_SIZE"
            )
        return None


def _end_process(reason: str) -> NoReturn:
    """An engine that hangs can be neither stopped nor closed."""
    print(f"error: {reason}", file=sys.stderr, flush=True)
    os._exit(2)
