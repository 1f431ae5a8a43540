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
_EXPERIMENTS = 3
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
    """One to three `ck` at once in one checkout; one of them is killed in most cases."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed = seed
        self._home = CkHome(folder)
        self._home("run", f"program:{PROGRAM}")
        self._stored: dict[str, int] = {}  # the size of the data set of each run that ended well
        self._killed: dict[str, int] = {}

    def _draw(self, index: int) -> tuple[random.Random, int, bool]:
        draw = random.Random(f"{self._seed} {index}")
        return draw, draw.choice((1, 1, 2, 3)), draw.random() < 0.8

    def describe(self, index: int) -> str:
        _, count, kills = self._draw(index)
        return f"{count} benchmarks{', one of them killed' if kills else ''}"

    def try_case(self, index: int) -> None:
        """Raises AssertionError where a promise is not kept."""
        draw, count, kills = self._draw(index)
        started = {}
        for number in range(count):
            size = draw.randint(10, 400)
            started[f"r{len(self._stored) + len(self._killed)}-{index}-{number}"] = (
                self._start(draw, f"r{index}-{number}", size),
                size,
            )
        killed = draw.choice([process for process, _ in started.values()]) if kills else None
        if killed:
            time.sleep(draw.uniform(0, _LATEST_KILL_S))
            how = draw.choice((os.kill, os.killpg))
            with contextlib.suppress(ProcessLookupError):
                how(killed.pid, signal.SIGKILL)
        for number, (process, size) in enumerate(started.values()):
            ended = wait(process)
            ended.check_said()
            run = f"r{index}-{number}"
            (self._stored if ended.code == 0 else self._killed)[run] = size
            assert ended.code == 0 or process is killed, f"status {ended.code}: {ended.said}"
        self._check()

    def _start(self, draw: random.Random, run: str, size: int) -> subprocess.Popen[str]:
        words = [f"--record_uoa=e{draw.randrange(_EXPERIMENTS)}", f"--env.CK_EXPLORE_RUN={run}"]
        words += [f"--env.CK_LOADGEN_DATASET_SIZE={size}"]
        if draw.random() < 0.3:
            words.append("--tmp_dir=tmp-other")
        return start(self._home, *BENCHMARK, *words)

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
        self._library = Path(os.environ["FAULTS_SHIM"], "disk_faults.so")
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
        ended = wait(start(self._home, *words, **(fault.preload(self._library) if fault else {})))
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
    """Two first runs at once in a CK home that has nothing."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._folder = folder

    def describe(self, index: int) -> str:
        return "two first runs in a new CK home"

    def try_case(self, index: int) -> None:
        """Raises AssertionError where a promise is not kept."""
        folder = self._folder / f"home-{index}"
        folder.mkdir()
        home = CkHome(folder)
        words = ("run", f"program:{PROGRAM}")
        started = [start(home, *words), start(home, *words, "--tmp_dir=tmp-other")]
        for process in started:
            ended = wait(process)
            ended.check_said()
            assert ended.code == 0, ended.said[-5000:]
        entries = Path(home.environment["CK_REPOS"], "local", "env").glob("*/.cm/meta.json")
        paths = Counter()
        for entry in entries:
            meta = json.loads(entry.read_text())
            paths[meta["soft_uoa"], meta["customize"].get("full_path")] += 1
        twice = [path for path, count in paths.items() if count > 1]
        assert not twice, f"registered twice: {twice}"
        again = wait(start(home, *words))
        assert again.code == 0, f"the home is broken: {again.said[-5000:]}"
        shutil.rmtree(folder)
