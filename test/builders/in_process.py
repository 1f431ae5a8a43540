"""Commands run in this process: for what needs no interpreter of its own."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from ck_mlperf.common.errors import run_main


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_here("common.downloads", "--url", ...)`: as `run_module` does, without the start-up."""

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        module = importlib.import_module(f"ck_mlperf.{name}")
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_main(module.main)
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(sys.argv, ended.value.code, *capfd.readouterr())

    return run
