"""The end of a test that does not come to one: its engine hangs, or answers next to nothing."""

from __future__ import annotations

import contextlib
import faulthandler
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
# Server sends at random times: a gap of so many mean ones comes once in 10^13.
_LONGEST_GAP = 30
_POLLS = 20
_MOST_POLL_S = 5.0
# What LoadGen gets to end by itself, once every query is answered at once.
_GRACE_S = 20.0
# In graces: this thread has ended the process by then, unless C code keeps the interpreter's lock.
_STUCK = 5


def allow_silence(batch_size: int) -> float:
    """How long an engine may be without an answer, in seconds."""
    return _SILENCE_S + _SILENCE_S_PER_SAMPLE * batch_size


class TimeLimit:
    """Within the block, ends the test that takes too long.

    A test's length is not known beforehand: MLPerf asks for a number of queries however slow they
    are. So what is limited is the time without an answer, unless the user limits the whole test.
    The test is then told to fail, which answers every query at once; where the engine does not come
    back even so, the process is ended with status 2. While C code keeps Python's global lock, no
    thread can do that: then faulthandler ends the process, with status 1, and prints where it is.
    """

    def __init__(
        self,
        timeout_s: float | None,
        silence_s: float,
        remove_logs: Callable[[], object],
        grace_s: float = _GRACE_S,
        end: Callable[[str], object] | None = None,
    ) -> None:
        """timeout_s: CK_TIMEOUT, of the whole block; 0: no limit at all; None: `silence_s`, the
        time without an answer. remove_logs: called before the process is ended. grace_s, end: for
        tests; `end` is called in place of an exit."""
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._remove_logs = remove_logs
        self._grace_s = grace_s
        self._end = end or self._end_process
        self._count: Callable[[], int] = lambda: 0
        self._fail: Callable[[BaseException], None] = lambda error: None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="time limit", daemon=True)

    def follow(
        self,
        count: Callable[[], int],
        fail: Callable[[BaseException], None],
        server_qps: float | None = None,
    ) -> None:
        """From now on the test counts its answers by `count`, and can be told to `fail`.

        server_qps: the mean rate at which LoadGen sends, where the engine has nothing to answer
        between two queries.
        """
        self._count, self._fail = count, fail
        if server_qps is not None:
            self._silence_s += _LONGEST_GAP / server_qps

    def __enter__(self) -> TimeLimit:
        if self._timeout_s != 0:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        if self._timeout_s != 0:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        poll_s = min(_MOST_POLL_S, (self._timeout_s or self._silence_s) / _POLLS)
        started = heard = time.monotonic()
        answers = 0
        while True:
            if self._timeout_s is None:
                left_s = heard + self._silence_s - time.monotonic()
            else:
                left_s = started + self._timeout_s - time.monotonic()
            stuck_s = max(left_s, 0) + _STUCK * self._grace_s
            faulthandler.dump_traceback_later(stuck_s, exit=True, file=2)
            if left_s < 0:
                break
            if self._is_over.wait(poll_s):
                return
            count = self._count()
            if count != answers:
                heard, answers = time.monotonic(), count
        reason = self._describe(answers)
        self._fail(UserError(reason))
        if not self._is_over.wait(self._grace_s):
            self._end(reason)

    def _describe(self, answers: int) -> str:
        if self._timeout_s is not None:
            return (
                f"the test was ended after CK_TIMEOUT={self._timeout_s:g} s, with {answers:,} "
                "samples answered. Set a longer one, or leave it out"
            )
        return (
            f"the test was ended: the engine has answered nothing for {self._silence_s:,.0f} s, "
            f"after {answers:,} samples. It hangs, or takes longer than that to start or for a "
            "batch: lower CK_BATCH_SIZE, or set CK_TIMEOUT, which takes the place of this limit"
        )

    def _end_process(self, reason: str) -> NoReturn:
        """An engine that hangs can be neither stopped nor closed."""
        with contextlib.suppress(OSError):
            self._remove_logs()
        print(f"error: {reason}", file=sys.stderr, flush=True)
        os._exit(2)
