"""Two of everything at once; sometimes one is killed. Nothing is lost, nothing is mixed up."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ck_mlperf.catalog import run_folder
from ck_mlperf.common.errors import UserError
from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.loadgen.job import EXIT_CODE, RECORD
from ck_mlperf.loadgen.run_folder import RUN_ID

from ..explore.conftest import FakeCk
from . import writers
from .processes import Ended, Started

_LATEST_START_S = 0.05
_LATEST_KILL_S = 0.3
_KILLED_SHARE = 0.3


class Pair(NamedTuple):
    """What several processes do at once in one folder."""

    name: str
    prepare: Callable[[Path], None]
    do: Callable[[int], object]
    """What the n-th process does. The folder is the current one."""
    check: Callable[[Path, Sequence[int]], None]
    """Raises AssertionError unless the folder has what these processes, which ended well, make."""
    refuses: str = ""
    """What a process may say that does not wait, and does nothing."""


def record_in_turn(repos: Path, number: int) -> None:
    """What a `ck benchmark` does from its first hook on, in the folder tmp that all share."""
    run_id = f"run-{number}"
    repos = repos.absolute()
    run_folder.enter_folder(writers.COMMAND)
    os.environ[RUN_ID] = run_id
    pause(number)
    made = {**writers.describe_run(run_id), "run_id": run_id}
    writers.write_logs(Path(), run_id)
    Path(RECORD).write_text(json.dumps(made))
    pause(number)
    Path(EXIT_CODE).write_text("0\n")
    record = run_folder.finish_run()
    if record["run_id"] != run_id:
        raise UserError(f"{run_id} took the record of {record['run_id']}")
    for name, content in writers.make_logs(run_id).items():
        if Path(name).read_bytes() != content:
            raise UserError(f"{run_id} took the logs of another")
    writers.record_run(repos, run_id)


def pause(number: int) -> None:
    time.sleep(random.Random(os.getpid() + number).uniform(0, 0.02))


def write_own_logs(number: int) -> None:
    folder = Path(f"process-{number}")
    folder.mkdir(exist_ok=True)
    writers.write_logs(folder, f"run-{number}")
    repos = Path("repos").absolute()
    os.chdir(folder)
    writers.record_run(repos, f"run-{number}")


def check_records(folder: Path, ended_well: Sequence[int]) -> None:
    runs = writers.read_runs(folder / "repos")
    assert len(runs) == len({*runs}), f"recorded twice: {runs}"
    missing = {f"run-{number}" for number in ended_well} - {*runs}
    assert not missing, f"lost: {missing}"
    assert writers.check_recording(folder, *runs) is False


def check_set(folder: Path, ended_well: Sequence[int]) -> None:
    assert writers.check_set(folder) or not ended_well


def build_one_of_two(number: int) -> None:
    """Two builds of one plan and one of another, which share their timings."""
    writers.build_fake_plan(Path.cwd(), "model.plan" if number < 2 else "other.plan")


def check_plans(folder: Path, ended_well: Sequence[int]) -> None:
    assert writers.check_plan(folder) or not {0, 1} & {*ended_well}
    assert writers.check_plan(folder, "other.plan") or 2 not in ended_well


SWEEP = ("--scenario=Offline", "--batch=1", "--repetitions=1", "--count=8", "--name=s")


def start_sweep(number: int) -> None:
    os.environ |= json.loads(Path("environment.json").read_text())
    program = str(Path(__file__).parents[1] / "explore" / "run_explore.py")
    os.execv(sys.executable, [sys.executable, program, "explore", *SWEEP])


def prepare_sweep(folder: Path) -> None:
    environment = FakeCk(folder).environment
    (folder / "environment.json").write_text(json.dumps(environment))


def check_sweep(folder: Path, ended_well: Sequence[int]) -> None:
    calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    words = [line.split()[2] for line in calls]
    ends = [line.split()[0] for line in calls if line.endswith("ends")]
    assert "begins begins" not in " ".join(words), f"two benchmarks at once: {calls}"
    assert len({*ends}) == len(ends), f"a run was made twice: {calls}"
    assert len(ends) == 2 or not ended_well, f"{calls}"


HERE = Path()
PAIRS = [
    Pair("recordings", writers.prepare_recording, write_own_logs, check_records),
    Pair(
        "a run and benchmarks in one folder",
        writers.prepare_recording,
        lambda number: record_in_turn(HERE / "repos", number),
        check_records,
    ),
    Pair(
        "preprocessings",
        writers.prepare_set,
        lambda number: preprocess(
            HERE / "images", HERE / "out", ImageRecipe(side=writers.SIDE), workers=1 + number % 2
        ),
        check_set,
        refuses="another process is writing to it",
    ),
    Pair("builds of plans", writers.prepare_plan, build_one_of_two, check_plans),
    Pair("sweeps", prepare_sweep, start_sweep, check_sweep),
]


class AtOnce:
    """Two or three processes of one kind, started within 50 ms; in some cases one is killed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed, self._folder = seed, folder
        for pair in PAIRS:
            work = self._work
            work.mkdir()
            pair.prepare(work)
            work.rename(folder / pair.name)

    @property
    def _work(self) -> Path:
        return self._folder / "work"

    def _draw(self, index: int) -> tuple[Pair, random.Random, int, bool]:
        draw = random.Random(f"{self._seed} {index}")
        return draw.choice(PAIRS), draw, draw.choice((2, 3)), draw.random() < _KILLED_SHARE

    def describe(self, index: int) -> str:
        pair, _, count, kills = self._draw(index)
        return f"{count} {pair.name}{', one of them killed' if kills else ''}"

    def try_case(self, index: int) -> None:
        """Raises AssertionError where a promise is not kept."""
        pair, draw, count, kills = self._draw(index)
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.copytree(self._folder / pair.name, self._work, symlinks=True)
        started = []
        for number in range(count):
            time.sleep(draw.uniform(0, _LATEST_START_S) if number else 0)
            started.append(self._start(pair, number))
        if kills:
            time.sleep(draw.uniform(0, _LATEST_KILL_S))
            draw.choice(started).kill()
        ended = [process.wait() for process in started]
        for process in ended:
            self._judge(pair, process, kills)
        pair.check(self._work, [n for n, process in enumerate(ended) if process.code == 0])
        # Nothing that the killed one left is in the way of the next.
        again = self._start(pair, 0).wait()
        assert again.code == 0, f"it cannot be repeated: {again.said}"

    def _start(self, pair: Pair, number: int) -> Started:
        said = self._folder / f"said-{number}"
        return Started(lambda: pair.do(number), self._work, said)

    def _judge(self, pair: Pair, process: Ended, kills: bool) -> None:
        process.check_said()
        refused = bool(pair.refuses) and pair.refuses in process.said
        killed = kills and process.code < 0
        assert process.code == 0 or refused or killed, f"{process.code}: {process.said}"
