"""Runs at the same time in one checkout, and a `ck` that is killed: nothing is mixed up or left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time

import pytest

pytestmark = pytest.mark.slow

PROGRAM = "program:image-classification-tensorrt-loadgen-py"
PATIENCE_S = 60


@pytest.fixture
def start(ck):
    """Starts a `ck` and returns its process."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(["ck", *arguments], env=ck.environment, cwd=ck.root,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True,
                                   start_new_session=True)  # fmt: skip
        started.append(process)
        return process

    ck("run", PROGRAM)  # two first runs in one home are another matter
    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def read_sizes(ck, name):
    """The data set's size in each record of an experiment."""
    points = (ck.experiments / name).glob("ckp-*.0001.json")
    runs = [json.loads(path.read_text())["characteristics_list"] for path in points]
    return [run["run"]["dataset"]["used"] for repetitions in runs for run in repetitions]


def test_each_gets_its_own_record(ck, start):
    processes = []
    for number, flag in enumerate(["", "", "--tmp_dir=tmp-worker"]):
        name, size = f"at-once-{number}", f"--env.CK_LOADGEN_DATASET_SIZE={number + 20}"
        processes.append(start("benchmark", PROGRAM, "--repetitions=2", "--record", "--sleep=0",
                               "--record_repo=local", f"--record_uoa={name}", size, flag,
                               "--skip_stat_analysis", "--process_multi_keys"))  # fmt: skip
    processes.append(start("run", PROGRAM, "--env.CK_LOADGEN_DATASET_SIZE=30"))
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], said
    for number in range(3):
        assert read_sizes(ck, f"at-once-{number}") == [number + 20] * 2
    # Of the three that share tmp/, one has waited for nobody.
    assert sum(f"is using {ck.tmp}" in text for text in said) == 2
    assert "waiting" not in said[2]


def test_a_killed_ck_takes_the_program_along(ck, start):
    process = start("run", PROGRAM, "--env.CK_LOADGEN_MODE=PerformanceOnly",
                    "--env.CK_LOADGEN_DURATION=600")  # fmt: skip
    deadline = time.monotonic() + PATIENCE_S
    while not list(ck.tmp.glob(".loadgen-unfinished-*/mlperf_log_detail.txt")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    _, said = process.communicate(timeout=PATIENCE_S)  # until all that it has started has ended
    assert f"the `ck` that started this run (process {process.pid}) has ended" in said
    assert not list(ck.tmp.glob("*record.json*"))
    assert not list(ck.tmp.glob("mlperf_log_*"))
    assert not list(ck.tmp.glob(".loadgen-unfinished-*"))
