"""Processes: modules of this library in ones of their own, and whether one is still there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.printable import make_printable

_MOST_SAID = 4000  # characters
_MOST_OF_COMMAND = 200


def module_command(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """`python -m ARGUMENTS`, and an environment in which it finds what this process finds."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return [sys.executable, "-m", *arguments], environment


def run_module(*arguments: str) -> None:
    """Run `python -m ARGUMENTS`. Raises UserError with what it printed last where it fails."""
    command, environment = module_command(*arguments)
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        raise UserError(cut(process.stderr) or describe_end(process.returncode))


def read_start(pid: int) -> int:
    """When a process started, in ticks since the system did; 0 where the system does not say.

    With its pid, this names one process for good: pids are used again. A process that has ended
    (a zombie too) is not there: ProcessLookupError.
    """
    os.kill(pid, 0)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    state, *values = stat.rpartition(")")[2].split()  # before it: a name, which may hold anything
    if state in "ZX":
        raise ProcessLookupError(pid)
    return int(values[18])


def describe_process(pid: str) -> str:
    """Its command line, in brackets, for a message; '' where the system does not say."""
    try:
        words = Path("/proc", pid, "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return ""
    line = make_printable(" ".join(word.decode(errors="replace") for word in words))
    return f" ({line[:_MOST_OF_COMMAND]})"


def is_running(pid: int, started: int) -> bool:
    """Whether the process is still there that had this pid and this `read_start`."""
    try:
        return read_start(pid) == started
    except ProcessLookupError:
        return False


def cut(text: str) -> str:
    """The end of what a process printed, where the reason of a failure is."""
    return text.strip()[-_MOST_SAID:]


def describe_end(code: int) -> str:
    """How a process ended that should not have: its exit code, or the signal that killed it."""
    return f"the process ended with {f'exit code {code}' if code >= 0 else f'signal {-code}'}"
