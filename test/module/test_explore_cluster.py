"""`ck explore loadgen --cluster=` with the real CK: two workers that share a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ck_mlperf.explore.worker import name_slot

from ..builders.waiting import TIMEOUT_S, wait_until

if TYPE_CHECKING:
    from ..conftest import CkHome

SWEEP = ("--scenario=Offline", "--batch=1,2,4,8,16", "--repetitions=1", "--count=500")


@pytest.mark.slow
@pytest.mark.long
def test_a_sweep_on_two_workers_of_which_one_is_killed(ck: CkHome, tmp_path: Path) -> None:
    """Each stands for a GPU; without one, CUDA_VISIBLE_DEVICES only tells them apart."""
    pytest.importorskip("distributed", reason="NOT RUN: needs Dask (pip install distributed)")
    # What is installed is the host's: its first run is one for itself, as docs/explore.md says.
    ck("run", "program:image-classification-tensorrt-loadgen-py", "--skip_print_timers")
    program = ck.root / "program" / "image-classification-tensorrt-loadgen-py"
    entry = ck.experiments / "spread"
    processes = {}

    def start(name: str, what: str, *options: str, **environment: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *options]
        command += [f"--scheduler-file={tmp_path}/scheduler.json", "--no-dashboard"]
        with (tmp_path / f"{name}.log").open("wb") as log:
            processes[name] = subprocess.Popen(
                command, env=ck.environment | environment, stdout=log, stderr=log
            )

    def count_points() -> int:
        return len(list(entry.glob("ckp-*.0001.json")))

    try:
        start("scheduler", "scheduler", "--host=127.0.0.1", "--port=0")
        wait_until((tmp_path / "scheduler.json").exists)
        address = json.loads((tmp_path / "scheduler.json").read_text())["address"]
        for gpu in "01":
            start(
                gpu, "worker", "--no-nanny", "--nthreads=1", "--resources", "GPU=1",
                f"--local-directory={tmp_path}", CUDA_VISIBLE_DEVICES=gpu,
            )  # fmt: skip
        wait_until(
            lambda: all("Registered to" in (tmp_path / f"{g}.log").read_text() for g in "01")
        )
        command = ["explore", "loadgen", *SWEEP, "--name=spread", f"--cluster={address}"]
        explore = subprocess.Popen(
            ["ck", *command],
            cwd=ck.root,
            env=ck.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: count_points() >= 2 or explore.poll() is not None)
        time.sleep(1)  # somewhere in the next run
        processes["1"].kill()
        said, complained = explore.communicate(timeout=TIMEOUT_S)
        assert explore.returncode == 0, (said, complained)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    assert "6 of 6 runs are recorded in experiment spread" in said
    assert count_points() == 6
    slots = [name_slot(os.uname().nodename, gpu) for gpu in "01"]
    assert all((program / f"tmp-{slot}").is_dir() for slot in slots)
    records = [json.loads(path.read_text()) for path in entry.glob("ckp-*.0001.json")]
    runs = [record["characteristics_list"][0]["run"] for record in records]
    assert sorted(r["engine"]["batch"] for r in runs if r["mode"] == "PerformanceOnly") == [
        1, 2, 4, 8, 16,
    ]  # fmt: skip
    # CK reads what was written without it.
    points = ck("list_points", "local:experiment:spread").stdout.split()
    assert len(points) == 6
    assert ck("list_points", "local:experiment:spread", f"--point={points[0]}").stdout.strip() == (
        f"{points[0]}-0001"
    )
    assert "0 to do" in ck(*command).stdout
    # A worker that is killed has its own scratch entry removed as it ends.
    wait_until(lambda: not list(ck.experiments.glob("explore-worker.*")))
