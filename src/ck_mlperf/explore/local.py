"""Carry out scheduled runs on this machine, one after the other."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import IO

from ck_mlperf.explore.entry import Entry, find_ck
from ck_mlperf.explore.runs import Outcome, ScheduledRun, Watcher, make_failure

_ERROR_BYTES = 100_000
_ERROR_LINES = 20


class LocalExecutor:
    """Runs `ck benchmark` in a process group of its own, which Ctrl-C ends and `kill -9` does not.

    entry: where the commands record. lock: the descriptor of a lock, which they inherit: a
    benchmark that outlives this process holds it. grace_s: how long a benchmark has, after Ctrl-C,
    to end by itself.
    """

    def __init__(self, entry: Entry, lock: int, grace_s: float = 10.0) -> None:
        self._entry = entry
        self._lock = lock
        self._grace_s = grace_s
        self._ck = find_ck()

    def run(self, runs: Sequence[ScheduledRun], watcher: Watcher) -> None:
        """See `Executor`."""
        for run in runs:
            watcher.started(run)
            watcher.ended(self._run_one(run))

    def _run_one(self, run: ScheduledRun) -> Outcome:
        start, began = datetime.now(timezone.utc), time.monotonic()
        # Files without a name: they are gone however this process ends.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                [self._ck, *run.argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                pass_fds=[self._lock],
            )
            try:
                exit_code = process.wait()
            except BaseException:
                _end(process, self._grace_s)
                raise
            wall_s = time.monotonic() - began
            record = self._entry.read_record(run.id)
            if record is not None:
                return Outcome(run, wall_s, record=record)
            error = find_error(_read_end(out), _read_end(err), exit_code)
            with self._entry.log_path(run.id).open("wb") as log:
                for title, stream in ((b"stdout", out), (b"stderr", err)):
                    log.write(b"--- " + title + b"\n")
                    stream.seek(0)
                    shutil.copyfileobj(stream, log)
        return make_failure(run, start, wall_s, exit_code, error)


def find_error(out: str, err: str, exit_code: int) -> str:
    """The reason that a `ck benchmark` without a record gives.

    The program and the hooks write `error: ...` to stderr, a defect leaves a traceback there; CK
    prints its own errors on stdout.
    """
    lines = err.rstrip().splitlines()
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith("error: "):
            lines[number] = lines[number].removeprefix("error: ")
            return "\n".join(lines[number:][:_ERROR_LINES])
    for line in reversed(out.splitlines()):
        if line.startswith("CK error: "):
            return line
    if lines:
        return "\n".join(lines[-_ERROR_LINES:])
    if exit_code < 0:
        return f"ended by signal {-exit_code} ({_name_signal(-exit_code)}), without a message"
    return (
        f"`ck benchmark` ended with exit code {exit_code}, without a record and without a message"
    )


def _end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """End the process group: as Ctrl-C does, and after `grace_s` by SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        # Ctrl-C again: no more waiting.
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(grace_s)
    finally:
        with contextlib.suppress(ProcessLookupError):  # what the command left behind, too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read_end(stream: IO[bytes]) -> str:
    stream.seek(0, os.SEEK_END)
    stream.seek(max(0, stream.tell() - _ERROR_BYTES))
    return stream.read().decode(errors="replace")


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
