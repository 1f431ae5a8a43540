"""The real `ck`: killed at random times, at each change of a registration, and two first runs."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from ck_mlperf.results.experiments import find_files, read_records

from ..builders.tiny_model import make_onnx, write_recipe
from ..conftest import PROGRAM, CkHome
from .processes import Ended
from .shim import Fault, count_changes

BENCHMARK = ("benchmark", f"program:{PROGRAM}", "--repetitions=1", "--record", "--sleep=0",
             "--record_repo=local", "--skip_stat_analysis", "--process_multi_keys")  # fmt: skip
LIMIT_S = 300
"""Only a hang takes so long."""
SHIM = Path(os.environ.get("FAULTS_SHIM", ""), "disk_faults.so")
_EXPERIMENTS = 3
_MOST_CHANGES = 90  # of a first recording; a later one has fewer
_LATEST_KILL_S = 5.0


def start(home: CkHome, *words: str, **environment: str) -> subprocess.Popen[str]:
    """Start a `ck` in a session of its own."""
    return subprocess.Popen(
        ["ck", *words],
        env=home.environment | environment,
        cwd=home.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait(process: subprocess.Popen[str]) -> Ended:
    """Wait until it has ended, with all that it has started: who has its output."""
    try:
        said, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"it hangs: {process.communicate()[0]}") from None
    return Ended(process.returncode, said)


class RandomKills:
    """One to three `ck` at once in one checkout. In most cases one of them is killed: at a random
    time, or at a change that its recording makes."""

    HOW = ("none", "ck", "ck", "ck and what it has started", "ck as it records")

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed, self._folder = seed, folder
        self._home = CkHome(folder)
        self._home("run", f"program:{PROGRAM}")
        self._home.experiments.mkdir(exist_ok=True)
        self._stored: dict[str, int] = {}  # the size of the data set of each run that ended well
        self._killed: dict[str, int] = {}

    def _draw(self, index: int) -> tuple[random.Random, int, str]:
        draw = random.Random(f"{self._seed} {index}")
        return draw, draw.choice((1, 1, 2, 3)), draw.choice(self.HOW)

    def describe(self, index: int) -> str:
        _, count, how = self._draw(index)
        return f"{count} benchmarks, killed: {how}"

    def try_case(self, index: int) -> None:
        """Raises AssertionError where a promise is not kept."""
        draw, count, how = self._draw(index)
        sizes = {f"r{index}-{number}": draw.randint(10, 400) for number in range(count)}
        victim = draw.choice([*sizes])
        started = {}
        for run, size in sizes.items():
            is_hit = run == victim and how == "ck as it records"
            fault = self._draw_fault(draw) if is_hit else {}
            started[run] = self._start(draw, run, size, fault)
        if how in ("ck", "ck and what it has started"):
            time.sleep(draw.uniform(0, _LATEST_KILL_S))
            kill = os.kill if how == "ck" else os.killpg
            with contextlib.suppress(ProcessLookupError):
                kill(started[victim].pid, signal.SIGKILL)
        ended = {run: wait(process) for run, process in started.items()}
        for run, process in ended.items():
            (self._stored if process.code == 0 else self._killed)[run] = sizes[run]
            process.check_said()
            is_killed = how != "none" and run == victim and process.code == -signal.SIGKILL
            assert process.code == 0 or is_killed, f"status {process.code}: {process.said}"
        self._check()

    def _draw_fault(self, draw: random.Random) -> dict[str, str]:
        at = draw.randint(1, _MOST_CHANGES)
        fault = Fault("kill", at, self._home.experiments, self._folder / "log")
        return fault.preload(SHIM)

    def _start(
        self, draw: random.Random, run: str, size: int, environment: dict[str, str]
    ) -> subprocess.Popen[str]:
        words = [f"--record_uoa=e{draw.randrange(_EXPERIMENTS)}", f"--env.CK_EXPLORE_RUN={run}"]
        words += [f"--env.CK_LOADGEN_DATASET_SIZE={size}"]
        if draw.random() < 0.3:
            words.append("--tmp_dir=tmp-other")
        return start(self._home, *BENCHMARK, *words, **environment)

    def _check(self) -> None:
        files = find_files([self._home.experiments.parent])
        records = [record for file in files for record in read_records(file.path)]
        sizes = {record.explore_run: record.dataset.used for record in records if record}
        counts = Counter(record.explore_run for record in records if record)
        assert None not in records
        assert max(counts.values(), default=1) == 1, f"recorded twice: {counts}"
        lost = self._stored.keys() - sizes.keys()
        assert not lost, f"lost: {lost}"
        known = self._stored | self._killed
        mixed_up = {run: size for run, size in sizes.items() if known.get(run or "") != size}
        assert not mixed_up, f"mixed up: {mixed_up}"


class Registering:
    """`ck detect` of a model, hit at its n-th change of what CK has; then once more."""

    ACTIONS = ("kill", "ENOSPC", "EROFS", "EIO")

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed, self._folder = seed, folder
        self._home = CkHome(folder)
        self._detect(self._make_model("first"))
        self._repos = Path(self._home.environment["CK_REPOS"])
        shutil.copytree(self._repos, folder / "kept")
        self._changes = self._count()

    def _draw(self, index: int) -> tuple[str, int]:
        draw = random.Random(f"{self._seed} {index}")
        return draw.choice(self.ACTIONS), draw.randint(1, self._changes)

    def describe(self, index: int) -> str:
        action, at = self._draw(index)
        return f"{action} at change {at} of {self._changes}"

    def try_case(self, index: int) -> None:
        """Raises AssertionError where a promise is not kept."""
        self._restore()
        model = self._make_model(f"model{index}")
        fault = Fault(*self._draw(index), self._repos, self._folder / "log")
        ended = self._detect(model, fault, code=None)
        ended.check_said()
        if ended.code == 0:
            self._check_registered(model)
        self._detect(model)
        self._check_registered(model)
        self._check_registered(self._folder / "first.onnx")

    def _restore(self) -> None:
        shutil.rmtree(self._repos)
        shutil.copytree(self._folder / "kept", self._repos)

    def _make_model(self, name: str) -> Path:
        path = make_onnx(self._folder / f"{name}.onnx", classes=10)
        write_recipe(path, name=name, dataset="digits")
        return path

    def _detect(self, model: Path, fault: Fault | None = None, code: int | None = 0) -> Ended:
        words = ["detect", "soft:model.onnx", f"--full_path={model}", "--quiet"]
        ended = wait(start(self._home, *words, **(fault.preload(SHIM) if fault else {})))
        assert code is None or ended.code == code, ended.said
        return ended

    def _check_registered(self, model: Path) -> None:
        process = start(self._home, "search", "env", f"--tags=model,onnx,{model.stem}")
        ended = wait(process)
        found = [line for line in ended.said.splitlines() if ":env:" in line]
        assert len(found) == 1, f"{model.stem}: {ended.said}"

    def _count(self) -> int:
        fault = Fault("count", 0, self._repos, self._folder / "log")
        self._detect(self._make_model("counted"), fault)
        return count_changes(fault.log)


class FirstRuns:
    """Two first commands at once in a CK home that has nothing."""

    RUN = ("run", f"program:{PROGRAM}")
    COMMANDS = (
        RUN,
        ("install", "package", "--tags=dataset,digits,preprocessed,side.28", "--quiet"),
    )

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed, self._folder = seed, folder

    def _draw(self, index: int) -> list[tuple[str, ...]]:
        draw = random.Random(f"{self._seed} {index}")
        return [draw.choice(self.COMMANDS), draw.choice(self.COMMANDS)]

    def describe(self, index: int) -> str:
        one, other = self._draw(index)
        return f"ck {one[0]} beside ck {other[0]} in a new CK home"

    def try_case(self, index: int) -> None:
        """Raises AssertionError where a promise is not kept."""
        shutil.rmtree(self._folder)
        self._folder.mkdir()
        home = CkHome(self._folder)
        for ended in [wait(process) for process in [start(home, *c) for c in self._draw(index)]]:
            ended.check_said()
            assert ended.code == 0, ended.said[-5000:]
        paths: Counter[tuple[str, str]] = Counter()
        for meta in Path(home.environment["CK_REPOS"], "local", "env").glob("*/.cm/meta.json"):
            entry = json.loads(meta.read_text())
            paths[entry["soft_uoa"], entry["customize"].get("full_path")] += 1
        twice = [path for path, count in paths.items() if count > 1]
        assert not twice, f"registered twice: {twice}"
        again = wait(start(home, *self.RUN))
        assert again.code == 0, f"the home is broken: {again.said[-5000:]}"
