"""A `ck` that records made-up runs, for tests of what happens around them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ck_mlperf.commands import main
from ck_mlperf.common.errors import run_main

from ..builders.waiting import wait_until

HERE = Path(__file__).resolve().parent
SRC = HERE.parent.parent / "src"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class FakeCk:
    """A folder with a `ck` of fake_ck.py, and `ck explore loadgen` with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "local"
        self.experiments = self.repository / "experiment"
        self.experiments.mkdir(parents=True)
        self.behave()
        programs = folder / "bin"
        programs.mkdir()
        ck = programs / "ck"
        ck.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "fake_ck.py"}" "$@"\n')
        ck.chmod(0o755)
        self.environment = dict(
            os.environ,
            CK_LOCAL_REPO=str(self.repository),
            FAKE_CK=str(folder),
            GRACE_S="10",
            PATH=os.pathsep.join([str(programs), os.environ["PATH"]]),
            PYTHONPATH=str(SRC),
            COLUMNS="200",
        )
        self.processes: list[subprocess.Popen[str]] = []

    def behave(self, **told: Any) -> None:
        """What a benchmark does, by its batch size: 'fail', 'die', 'invalid', 'slow', or seconds.

        By `Scenario.TEST01` and so on as well; valid=True: other runs are VALID.
        """
        plain = {name.removeprefix("batch_"): what for name, what in told.items()}
        (self.folder / "behaviour.json").write_text(json.dumps(plain))

    def start(
        self, *options: str, before: Sequence[str] = (), **environment: str
    ) -> subprocess.Popen[str]:
        """Start `explore` with the options. before: words that go before the command."""
        process = subprocess.Popen(
            [*before, sys.executable, str(HERE / "run_explore.py"), "explore", *options],
            env=self.environment | environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def __call__(self, *options: str, verb: str = "explore", code: int = 0) -> tuple[str, str]:
        """Run `explore` in this process. Returns what it printed, on stdout and on stderr."""
        out, err = io.StringIO(), io.StringIO()
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.MonkeyPatch.context() as patch,
        ):
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "executable", "/no/python")
            patch.chdir(self.folder)
            with pytest.raises(SystemExit) as ended:
                run_main(lambda: main([verb, *options]))
        for number, handler in handlers.items():
            signal.signal(number, handler)
        assert ended.value.code == code, (out.getvalue(), err.getvalue())
        return out.getvalue(), err.getvalue()

    def list_calls(self, what: str = "begins") -> list[str]:
        """The runs that the fake `ck` began or ended, in order."""
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line.split()[0] for line in lines if line.endswith(what)]

    def list_pids(self) -> list[int]:
        """The processes of the fake `ck`, in order."""
        lines = (self.folder / "calls").read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.endswith("begins")]

    def wait_for_calls(self, count: int, what: str = "begins") -> None:
        """Wait until the fake `ck` has begun or ended so many benchmarks."""
        wait_until(lambda: len(self.list_calls(what)) >= count)


@pytest.fixture
def fake_ck(tmp_path: Path) -> Iterator[FakeCk]:
    """`ck explore loadgen` with a `ck` that records made-up runs."""
    fake = FakeCk(tmp_path)
    yield fake
    for process in fake.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
