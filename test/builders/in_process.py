"""Commands run in this process: for what needs no interpreter of its own."""

from __future__ import annotations

import importlib
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from ck_mlperf.common.errors import run_main

Run = Callable[..., subprocess.CompletedProcess[str]]


def run_program(program: Callable[[], object], *arguments: object) -> int:
    """The status with which `program` exits, given these arguments of a command line."""
    command = ["program", *map(str, arguments)]
    with mock.patch.object(sys, "argv", command), pytest.raises(SystemExit) as ended:
        program()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def run_script(path: Path, *arguments: object) -> int:
    """Run a script as `python PATH ...` does. Returns its status."""
    return run_program(lambda: runpy.run_path(str(path), run_name="__main__"), *arguments)


@pytest.fixture
def run_here(capfd: pytest.CaptureFixture[str]) -> Run:
    """`run_here("common.downloads", "--url", ...)`: as `run_module` does, without the start-up."""

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        module = importlib.import_module(f"ck_mlperf.{name}")
        capfd.readouterr()
        status = run_program(lambda: run_main(module.main), *arguments)
        return subprocess.CompletedProcess([name, *arguments], status, *capfd.readouterr())

    return run
