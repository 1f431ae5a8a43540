"""Run planned runs on this machine, one after the other."""

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
from ck_mlperf.explore.runs import Failure, Outcome, PlannedRun, Watcher

# How long a benchmark has, after Ctrl-C, to end by itself.
GRACE_S = 10.0
_ERROR_BYTES = 100_000
_ERROR_LINES = 20


class LocalExecutor:
    """Runs `ck benchmark` in a process group of its own, which Ctrl-C ends and `kill -9` does not.

    entry: where the commands record. lock: a descriptor of `hold_lock`, which they inherit.
    """

    def __init__(self, entry: Entry, lock: int) -> None:
        self._entry = entry
        self._lock = lock
        self._ck = find_ck()

    def run(self, runs: Sequence[PlannedRun], watcher: Watcher) -> None:
        """See `Executor`."""
        for run in runs:
            watcher.started(run)
            watcher.ended(self._run_one(run))

    def _run_one(self, run: PlannedRun) -> Outcome:
        start, began = datetime.now(timezone.utc), time.monotonic()
        # Files without a name: nothing is left of them whatever ends this process.
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
                _end(process)
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
        return Outcome(
            run,
            wall_s,
            failure=Failure(
                explore_run=run.id,
                start=start.isoformat(timespec="seconds"),
                wall_s=round(wall_s, 3),
                exit_code=exit_code,
                error=error,
                program=run.program,
                environment=run.environment,
                weights=run.point.weights,
                command=run.argv,
            ),
        )


def find_error(out: str, err: str, exit_code: int) -> str:
    """What a `ck benchmark` that recorded nothing says is the reason.

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
        return f"ended by signal {-exit_code} ({_name_signal(-exit_code)}), without a word"
    return f"`ck benchmark` ended with exit code {exit_code}, without a record and without a word"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process group: as Ctrl-C does, then for good."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        # Ctrl-C again: no more waiting.
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(GRACE_S)
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
