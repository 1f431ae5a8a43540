"""`ck explore loadgen` with the real CK, LoadGen and the embedded default."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..conftest import CkHome

SWEEP = ("--scenario=MultiStream,Offline", "--batch=1,2", "--repetitions=1", "--count=64")


def test_words_are_refused(ck: CkHome) -> None:
    process = ck("explore", "loadgen", "--batchs=3", code=2)
    assert process.stderr == (
        "usage: ck explore loadgen [--OPTION=VALUE ...]\n"
        "ck explore loadgen: error: no such option: --batchs; did you mean --batch?\n"
    )


@pytest.mark.slow
def test_a_sweep_that_is_killed_ends_complete(ck: CkHome) -> None:
    entry = ck.experiments / "sweep"
    command = ["ck", "explore", "loadgen", *SWEEP, "--name=sweep"]
    first = subprocess.Popen(
        command,
        cwd=ck.root,
        env=ck.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while len(read_runs(entry)) < 2:
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(1)  # somewhere in the next run
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()

    process = ck(*command[1:])
    assert "4 configurations, 5 runs: " in process.stdout
    assert "5 of 5 runs are recorded in experiment sweep" in process.stdout
    runs = read_runs(entry)
    assert len(runs) == len({explore_run(run) for run in runs}) == 5
    (accuracy,) = (run for run in runs if run["mode"] == "AccuracyOnly")
    assert accuracy["accuracy"]["top1_percent"] == pytest.approx(99.2)
    assert sorted((run["scenario"], run["engine"]["batch"]) for run in runs) == [
        *[("MultiStream", 1), ("MultiStream", 2), ("MultiStream", 2)],
        *[("Offline", 1), ("Offline", 2)],
    ]
    meta = json.loads((entry / ".cm" / "meta.json").read_text())
    assert (meta["points"], meta["tags"]) == ("5", ["explore", "loadgen"])
    assert "0 to do" in ck(*command[1:]).stdout


def read_runs(entry: Path) -> list[dict[str, Any]]:
    """The records of an experiment entry."""
    return [
        json.loads(path.read_text())["characteristics_list"][0]["run"]
        for path in entry.glob("ckp-*.0001.json")
    ]


def explore_run(run: dict[str, Any]) -> str:
    return str(run["settings"]["ours"]["CK_EXPLORE_RUN"]["value"])
