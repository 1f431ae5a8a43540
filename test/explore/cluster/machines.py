"""Machines of a cluster: a real scheduler, workers in processes of their own, made-up runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import distributed

from ck_mlperf.explore.runs import (
    PERFORMANCE,
    Configuration,
    Network,
    Outcome,
    ScheduledRun,
    schedule_run,
)

from ...builders.waiting import TIMEOUT_S, wait_until

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]


class Machine:
    """A folder that stands for a worker's machine, with a Python and a `ck` of its own."""

    def __init__(self, folder: Path, checkout: Path = ROOT) -> None:
        self.folder = folder
        self.experiments = folder / "local" / "experiment"
        self.experiments.mkdir(parents=True)
        self.behave()
        programs = folder / "bin"
        programs.mkdir()
        self.python = programs / "python"
        self.python.symlink_to(Path(sys.executable).resolve())
        shutil.copy(HERE / "fake_worker_ck.sh", programs / "ck")
        (programs / "ck").chmod(0o755)
        self.environment = dict(
            os.environ,
            FAKE_CK=str(folder),
            FAKE_CK_PY=str(HERE.parent / "fake_ck.py"),
            FAKE_PYTHON=str(self.python),
            FAKE_CHECKOUT=str(checkout),
            PYTHONPATH=str(Path(distributed.__file__).parents[1]),  # as in a virtual environment
        )
        self.environment.pop("CUDA_VISIBLE_DEVICES", None)

    def behave(self, **by_batch: object) -> None:
        """What a benchmark does, by its batch size: see FakeCk."""
        plain = {name.removeprefix("batch_"): told for name, told in by_batch.items()}
        (self.folder / "behaviour.json").write_text(json.dumps(plain))

    def forget(self) -> None:
        (self.folder / "calls").unlink(missing_ok=True)

    def calls(self, what: str) -> list[tuple[str, int]]:
        """(run, process) of each benchmark that began or ended here."""
        path = self.folder / "calls"
        words = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(run, int(pid)) for run, pid, how in words if how == what]


class Cluster:
    """A scheduler, and workers on machines. Processes that a test killed are started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machines: dict[str, Machine] = {}
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.scheduler: subprocess.Popen[bytes] | None = None
        self._file = folder / "scheduler.json"

    @property
    def address(self) -> str:
        return str(json.loads(self._file.read_text())["address"])

    def start(self, *names: str) -> None:
        """Have the scheduler and these workers, on machines that have forgotten their calls."""
        if self.scheduler is None or self.scheduler.poll() is not None:
            self.close()
            self._file.unlink(missing_ok=True)
            self.scheduler = self._start(
                "scheduler", Path(sys.executable), dict(os.environ), "--port=0", "--no-dashboard"
            )
            wait_until(lambda: self._file.exists() and self._file.read_text().endswith("}"))
        for name in names:
            if name not in self.workers:
                self.add(name)
            self.machines[name].behave()
            self.machines[name].forget()
        self.wait()

    def add(self, name: str, checkout: Path = ROOT) -> Machine:
        """A new worker."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        self.machines[name] = machine = Machine(folder, checkout)
        self.workers[name] = self._start(
            "worker", machine.python, machine.environment, "--no-nanny", "--nthreads=1",
            "--no-dashboard", f"--name={name}", f"--local-directory={machine.folder}",
            "--resources", "GPU=1",
        )  # fmt: skip
        return machine

    def _start(
        self, what: str, python: Path, environment: dict[str, str], *options: str
    ) -> subprocess.Popen[bytes]:
        command = [str(python), "-m", f"distributed.cli.dask_{what}", "--host=127.0.0.1"]
        command += [f"--scheduler-file={self._file}", *options]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self) -> None:
        """Wait until all workers are there."""
        with distributed.Client(self.address) as client:
            client.wait_for_workers(len(self.workers), timeout=TIMEOUT_S)

    def remove(self, name: str) -> None:
        worker = self.workers.pop(name)
        worker.kill()
        worker.wait()

    def close(self) -> None:
        for name in [*self.workers]:
            self.remove(name)
        if self.scheduler is not None:
            self.scheduler.kill()
            self.scheduler.wait()


class Listener:
    """A `Watcher` that remembers."""

    def __init__(self) -> None:
        self.begun: list[ScheduledRun] = []
        self.outcomes: list[Outcome] = []

    def started(self, run: ScheduledRun) -> None:
        self.begun.append(run)

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def schedule(*batches: int) -> list[ScheduledRun]:
    """A run of each batch."""
    configurations = [Configuration(Network(), "Offline", batch) for batch in batches]
    return [
        schedule_run(one, 1, PERFORMANCE, "program", {}, "sweep", ("explore",))
        for one in configurations
    ]
