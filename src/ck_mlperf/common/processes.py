"""Modules of this library in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

from ck_mlperf.common.errors import UserError

_MOST_SAID = 4000  # characters


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


def cut(text: str) -> str:
    """The end of what a process printed, where the reason of a failure is."""
    return text.strip()[-_MOST_SAID:]


def describe_end(code: int) -> str:
    """How a process ended that should not have: its exit code, or the signal that killed it."""
    return f"the process ended with {f'exit code {code}' if code >= 0 else f'signal {-code}'}"
