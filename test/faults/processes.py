"""Processes that a case starts: forked from this one, which has imported what they need."""

from __future__ import annotations

import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from ck_mlperf.common.errors import run_main

LIMIT_S = 120
"""Only a hang takes so long."""
_CRASHED = 70


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    """As subprocess has it: negative, the signal that killed it."""
    said: str
    """What it printed."""

    def check_said(self) -> None:
        """Whatever happens to it, it says what is wrong, and that with its last breath."""
        assert "Traceback" not in self.said, f"a traceback:\n{self.said}"
        if self.code > 0:
            assert "error" in self.said.lower(), (
                f"status {self.code} without a message: {self.said!r}"
            )


class Started:
    """A process that runs `step` in a folder, as a program's main."""

    def __init__(self, step: Callable[[], object], folder: Path, said: Path) -> None:
        self._said = said
        self.pid = os.fork()
        if self.pid == 0:
            _run(step, folder, said)
        self._handle = os.pidfd_open(self.pid)

    def wait(self, limit_s: float = LIMIT_S) -> Ended:
        """Wait for its end. Raises AssertionError where it hangs, and ends it."""
        hangs = not select.select([self._handle], [], [], limit_s)[0]
        os.close(self._handle)
        if hangs:
            os.killpg(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        said = self._said.read_text(encoding="utf-8", errors="replace")
        assert not hangs, f"it hangs: {said}"
        return Ended(os.waitstatus_to_exitcode(status), said)

    def kill(self) -> None:
        """As `kill -9` does."""
        os.kill(self.pid, signal.SIGKILL)


def run(step: Callable[[], object], folder: Path, said: Path, limit_s: float = LIMIT_S) -> Ended:
    """Run a step in a process of its own, and wait."""
    return Started(step, folder, said).wait(limit_s)


def _run(step: Callable[[], object], folder: Path, said: Path) -> NoReturn:
    code = _CRASHED
    try:
        os.setsid()
        os.chdir(folder)
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(file, number)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace")

        def main() -> None:
            step()

        run_main(main)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else _CRASHED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
