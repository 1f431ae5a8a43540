"""A run ends with the `ck` that started it. Here `ck` is a `sleep`, and the run only waits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ck_mlperf.common.processes import is_running, read_start
from ck_mlperf.loadgen.watch import end_with_ck

from ..builders.forks import start_fork

FAKES = Path(__file__).parents[1] / "fakes"
LEFT = ("record.json", "report.txt", "mlperf_log_summary.txt")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: that of a run which has left all of its results and goes on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.json").write_text(json.dumps({"run_id": "mine"}))
    (tmp_path / ".loadgen-unfinished-abc").mkdir()
    for name in LEFT:
        (tmp_path / name).write_text("complete")
    return tmp_path


@pytest.fixture
def ck():
    """A process that stands in for `ck`."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture(params=["pidfd", "poll"])
def system(request, monkeypatch):
    """How the end of a process is noticed."""
    if request.param == "poll":
        monkeypatch.syspath_prepend(str(FAKES / "without_pidfd"))


class Run:
    """A run that waits for ever, in a process of its own."""

    def __init__(self, ck: int, started: int) -> None:
        self.stderr, writing = os.pipe()
        began, beginning = os.pipe()
        self._process = start_fork(self._wait, {"pid": ck, "started": started}, writing, beginning)
        os.close(writing)
        os.close(beginning)
        os.read(began, 1)

    @staticmethod
    def _wait(ck, stderr, beginning):
        os.dup2(stderr, 2)
        os.close(stderr)
        with end_with_ck(ck, "mine"):
            os.write(beginning, b".")
            while True:
                signal.pause()

    def wait(self) -> None:
        """Wait until it has been killed."""
        self._process.join()
        assert self._process.exitcode == -signal.SIGKILL

    def join(self) -> str:
        """Wait until it and what watches it have ended. Returns what they said."""
        self.wait()
        with open(self.stderr) as stderr:
            return stderr.read()


def test_a_killed_ck_takes_the_run_along(folder, ck, system):
    run = Run(ck.pid, read_start(ck.pid))
    ck.kill()
    assert run.join() == (
        f"error: the `ck` that started this run (process {ck.pid}) has ended, and so has the run\n"
    )
    assert os.listdir(folder) == ["job.json"]


def test_a_ck_that_has_ended_before(folder, ck, system):
    started = read_start(ck.pid)
    ck.kill()
    ck.wait()
    Run(ck.pid, started).join()
    assert os.listdir(folder) == ["job.json"]


def test_another_process_with_the_pid_of_ck_is_not_ck(folder, ck, system):
    Run(ck.pid, read_start(ck.pid) - 1).join()
    assert os.listdir(folder) == ["job.json"]


def test_nobody_has_to_read_what_it_says(folder, ck):
    run = Run(ck.pid, read_start(ck.pid))
    os.close(run.stderr)
    ck.kill()
    run.wait()
    while os.listdir(folder) != ["job.json"]:
        time.sleep(0.01)


@pytest.mark.parametrize("has_job", [False, True])
def test_what_the_next_run_has_begun_is_left_alone(folder, ck, has_job):
    run = Run(ck.pid, read_start(ck.pid))
    (folder / "job.json").unlink()
    if has_job:
        (folder / "job.json").write_text(json.dumps({"run_id": "the next one's"}))
    before = sorted(os.listdir(folder))
    ck.kill()
    assert run.join().count("\n") == 1
    assert sorted(os.listdir(folder)) == before


def test_a_run_that_ends_first_keeps_its_results(folder, ck, system):
    before = sorted(os.listdir(folder))
    with end_with_ck({"pid": ck.pid, "started": read_start(ck.pid)}, "mine"):
        pass
    assert ck.poll() is None
    assert sorted(os.listdir(folder)) == before


def test_a_process_is_told_from_others(ck):
    started = read_start(ck.pid)
    assert is_running(ck.pid, started)
    assert not is_running(ck.pid, started + 1)
    ck.kill()
    os.waitid(os.P_PID, ck.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert not is_running(ck.pid, started)
    ck.wait()
    assert not is_running(ck.pid, started)
