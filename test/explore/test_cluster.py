"""Runs on Dask's workers: a real scheduler, workers in processes of their own, made-up runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="NOT RUN: needs Dask (pip install distributed)")

import dask
import distributed

import ck_mlperf_remote
from ck_mlperf.common.errors import UserError
from ck_mlperf.explore import cluster
from ck_mlperf.explore.entry import Entry
from ck_mlperf.explore.runs import PERFORMANCE, Network, Outcome, PlannedRun, Point, plan_run
from ck_mlperf.explore.worker import digest_checkout, make_request, name_slot, read_run

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TIMEOUT_S = 60


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


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
        ck = programs / "ck"
        ck.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "fake_worker_ck.py"}" "$@"\n')
        ck.chmod(0o755)
        self.environment = dict(
            os.environ,
            FAKE_CK=str(folder),
            FAKE_CHECKOUT=str(checkout),
            PYTHONPATH=sysconfig.get_path("purelib"),  # what a virtual environment would give
        )
        self.environment.pop("CUDA_VISIBLE_DEVICES", None)

    def behave(self, **by_batch: object) -> None:
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
    """A scheduler, and workers on machines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machines: dict[str, Machine] = {}
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self._file = folder / "scheduler.json"
        self.scheduler = self._start(
            "scheduler", Path(sys.executable), dict(os.environ), "--port=0", "--no-dashboard"
        )
        wait_until(self._file.exists)
        self.address = json.loads(self._file.read_text())["address"]

    def add(self, name: str, *options: str, checkout: Path = ROOT) -> Machine:
        machine = Machine(self.folder / name, checkout)
        options = options or ("--resources", "GPU=1")
        self.machines[name] = machine
        self.workers[name] = self._start(
            "worker", machine.python, machine.environment, "--no-nanny", "--nthreads=1",
            "--no-dashboard", f"--name={name}", f"--local-directory={machine.folder}", *options,
        )  # fmt: skip
        return machine

    def _start(self, what: str, python: Path, environment: dict[str, str], *options: str):
        command = [str(python), "-m", f"distributed.cli.dask_{what}", "--host=127.0.0.1"]
        command += [f"--scheduler-file={self._file}", *options]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self) -> None:
        """Until all workers are there."""
        with distributed.Client(self.address) as client:
            client.wait_for_workers(len(self.workers), timeout=TIMEOUT_S)

    def remove(self, name: str) -> None:
        worker = self.workers.pop(name)
        worker.kill()
        worker.wait()

    def close(self) -> None:
        for name in [*self.workers]:
            self.remove(name)
        self.scheduler.kill()
        self.scheduler.wait()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two machines."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    made.add("one")
    made.add("two")
    yield made
    made.close()


@pytest.fixture
def client(two: Cluster):
    two.wait()
    with cluster.connect(two.address) as client:
        yield client


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    made = Entry(tmp_path, "sweep")
    made.folder.mkdir(parents=True)
    return made


def plan(*batches: int) -> list[PlannedRun]:
    points = [Point(Network(), "Offline", batch) for batch in batches]
    return [plan_run(p, 1, PERFORMANCE, "program", {}, "sweep", ("explore",)) for p in points]


class Listener:
    def __init__(self) -> None:
        self.begun: list[PlannedRun] = []
        self.outcomes: list[Outcome] = []

    def started(self, run: PlannedRun) -> None:
        self.begun.append(run)

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def count_files(entry: Entry) -> int:
    return len(list(entry.folder.iterdir()))


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_each_run_is_recorded_once_and_a_failed_one_is_not_tried_again(two, client, entry):
    for machine in two.machines.values():
        machine.behave(any=0.2, batch_3="fail")
    runs, listener = plan(1, 2, 3, 4, 5, 6), Listener()
    cluster.ClusterExecutor(client, entry).run(runs, listener)
    assert listener.begun == runs
    assert {outcome.run.id for outcome in listener.outcomes} == {run.id for run in runs}
    (failed,) = [outcome for outcome in listener.outcomes if outcome.failure]
    assert failed.failure.error == "the model takes at most 3 images\n  at once"
    assert (failed.failure.exit_code, failed.failure.command) == (2, runs[2].argv)
    assert failed.run.point.batch == 3
    assert "CK's own words" in entry.log_path(failed.run.id).read_text()
    for outcome in listener.outcomes:
        if outcome is not failed:
            assert outcome.record["throughput"]["samples_per_second"] == 1234.5
    assert set(entry.list_recorded()) == {run.id for run in runs} - {failed.run.id}
    assert count_files(entry) == 6
    one, other = (machine.calls("begins") for machine in two.machines.values())
    assert one  # both worked
    assert other
    assert len(one + other) == 6
    for machine in two.machines.values():
        assert not list(machine.experiments.iterdir())
    # A run that is finished twice is one point.
    (again,) = plan(1)
    cluster.ClusterExecutor(client, entry).run([again], listener)
    assert count_files(entry) == 6


def test_a_worker_that_is_killed_costs_the_retry_of_its_run(two, client, entry):
    for machine in two.machines.values():
        machine.forget()
        machine.behave(any=0.3, batch_12=1.5)
    runs, listener = plan(11, 12, 13, 14, 15), Listener()
    killed: list[tuple[str, int]] = []

    class Killer(Listener):
        def ended(self, outcome: Outcome) -> None:
            super().ended(outcome)
            if not killed:
                for name, machine in two.machines.items():
                    for run, pid in machine.calls("begins"):
                        if run == runs[1].id:
                            killed.append((name, pid))
                            two.remove(name)

    listener = Killer()
    cluster.ClusterExecutor(client, entry).run(runs, listener)
    ((name, pid),) = killed
    wait_until(lambda: not is_running(pid))  # its benchmark does not go on without it
    one, other = (machine.calls("begins") for machine in two.machines.values())
    assert sorted(run for run, _ in one + other) == sorted([*(run.id for run in runs), runs[1].id])
    assert set(entry.list_recorded()) == {run.id for run in runs}
    assert sorted(outcome.run.id for outcome in listener.outcomes) == sorted(r.id for r in runs)
    assert all(outcome.record for outcome in listener.outcomes)
    assert count_files(entry) == 5
    wait_until(lambda: not list(two.machines[name].experiments.iterdir()))
    shutil.rmtree(two.machines[name].folder)
    two.add(name)


@pytest.mark.slow
def test_an_interruption_ends_the_runs_in_flight(two, client, entry):
    for machine in two.machines.values():
        machine.forget()
        machine.behave(any=60)

    class Impatient(Listener):
        def started(self, run: PlannedRun) -> None:
            super().started(run)
            if len(self.begun) == 2:
                for machine in two.machines.values():
                    wait_until(lambda machine=machine: machine.calls("begins"))
                raise KeyboardInterrupt

    listener = Impatient()
    with pytest.raises(KeyboardInterrupt):
        cluster.ClusterExecutor(client, entry).run(plan(21, 22, 23), listener)
    for machine in two.machines.values():
        ((_, pid),) = machine.calls("begins")
        assert not is_running(pid)
        assert not list(machine.experiments.iterdir())
    assert not listener.outcomes
    assert count_files(entry) == 0


@pytest.mark.slow
def test_another_version_is_refused_before_anything_is_run(two, tmp_path):
    other = tmp_path / "ck-mlperf"
    for name in ("explore", "imagenet"):
        helper = f"soft/lib.python.{name}-helper"
        shutil.copytree(ROOT / helper, other / helper)
    two.add("other", checkout=other)
    try:
        two.wait()
        said = rf"(?s)worker tcp://.*{other} is another version of this repository"
        with pytest.raises(UserError, match=said), cluster.connect(two.address):
            pass
    finally:
        two.remove("other")


@pytest.mark.slow
def test_a_scheduler_that_is_lost(tmp_path, entry):
    own = Cluster(tmp_path)
    try:
        machine = own.add("one")
        machine.behave(any=60)
        own.wait()

        class Killer(Listener):
            def started(self, run: PlannedRun) -> None:
                wait_until(lambda: machine.calls("begins"))
                own.scheduler.kill()

        said = "the scheduler was lost"
        with pytest.raises(UserError, match=said), cluster.connect(own.address) as client:
            cluster.ClusterExecutor(client, entry).run(plan(1, 2), Killer())
        ((_, pid),) = machine.calls("begins")
        wait_until(lambda: not is_running(pid))
    finally:
        own.close()


def test_when_every_worker_that_runs_it_dies(entry):
    """Dask gives a run up after some workers; the sweep has then a failure, and goes on."""

    class Future:
        def result(self) -> str:
            raise distributed.scheduler.KilledWorker("explore-x", None, 3)

    class Client:
        def run_on_scheduler(self, function: object, resource: str) -> int:
            return 1

        def submit(self, *arguments: object, **options: object) -> Future:
            return Future()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "_wait_for_some", lambda futures: futures)
        patch.setattr(distributed.scheduler.KilledWorker, "__str__", lambda self: "3 workers died")
        listener = Listener()
        cluster.ClusterExecutor(Client(), entry).run(plan(1, 2), listener)
    first, second = (outcome.failure for outcome in listener.outcomes)
    assert first.error == "every worker that ran it died: 3 workers died"
    assert first.explore_run != second.explore_run


@pytest.mark.parametrize("address", ["", "here", "http://a:1", "tcp://a", "tcp://a b:1", "pbs"])
def test_an_address_that_is_none(address):
    with pytest.raises(UserError, match="want tcp://HOST:PORT"), cluster.connect(address):
        pass


def test_nobody_at_the_address(monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.5)
    said = "no scheduler answers there within 0.5 s"
    with pytest.raises(UserError, match=said), cluster.connect("tcp://127.0.0.1:9"):
        pass


def test_no_worker_for_us():
    with distributed.LocalCluster(
        n_workers=0, processes=False, dashboard_address="127.0.0.1:0", protocol="tcp"
    ) as local:
        said = "no worker offers the resource GPU: start one for each GPU"
        with pytest.raises(UserError, match=said), cluster.connect(local.scheduler_address):
            pass


def test_a_machine_without_ck(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="no `ck` command, neither beside"):
        ck_mlperf_remote.work(make_request(None))
    ck = tmp_path / "ck"
    ck.write_text("#!/bin/sh\necho 'CK error: no such repository'\nexit 16\n")
    ck.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"no repository ck-mlperf: CK error: no such"):
        ck_mlperf_remote.work(make_request(None))


def test_a_request_is_read_as_it_was_made():
    for point in (
        Point(Network("resnet", "fp16", "tensorrt"), "MultiStream", 8, samples_per_query=16),
        Point(Network(weights="model,onnx"), "Server", 1, target_qps=12.5),
    ):
        run = plan_run(point, 2, PERFORMANCE, "program", {"CK_VERBOSE": "yes"}, "sweep", ("a",))
        assert read_run(json.loads(make_request(run))["run"]) == run


def test_the_digest_is_that_of_what_decides_a_run(tmp_path):
    (tmp_path / "program" / "p" / "tmp-x").mkdir(parents=True)
    (tmp_path / "program" / "p" / "run.py").write_text("1")
    before = digest_checkout(tmp_path)
    (tmp_path / "program" / "p" / "tmp-x" / "record.json").write_text("{}")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("a")
    assert digest_checkout(tmp_path) == before
    (tmp_path / "program" / "p" / "run.py").write_text("2")
    changed = digest_checkout(tmp_path)
    (tmp_path / "program" / "p" / "run.py").rename(tmp_path / "program" / "p" / "walk.py")
    assert len({before, changed, digest_checkout(tmp_path)}) == 3


def test_slots_are_named_by_machine_and_gpus():
    assert name_slot("node1", "") == "node1-all"
    assert name_slot("node1.x", "0,1") == "node1-x-0-1"
    assert name_slot("n", "GPU-8f/../..") == "n-GPU-8f"


def read_hosts(tmp_path: Path, text: str):
    path = tmp_path / "hosts.txt"
    path.write_text(text)
    return cluster.read_hosts(path)


def test_hosts(tmp_path):
    text = "# ours\nnode1 CUDA_VISIBLE_DEVICES=0\n\nnode1 CUDA_VISIBLE_DEVICES=1 CK_REPOS=/d/ck # x"
    assert read_hosts(tmp_path, text + "\n10.0.0.2\n") == [
        ("node1", {"CUDA_VISIBLE_DEVICES": "0"}),
        ("node1", {"CUDA_VISIBLE_DEVICES": "1", "CK_REPOS": "/d/ck"}),
        ("10.0.0.2", {}),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no host in it"),
        ("# none\n", "no host in it"),
        ("a\nb;reboot\n", r"line 2: 'b;reboot': want HOST"),
        ("-oProxyCommand=x\n", "line 1"),
        ("a 0\n", "line 1: 'a 0': want HOST NAME=VALUE"),
        ("a X='$(id)'\n", "line 1"),
        ("a\na\n", "line 2: the same worker as before"),
    ],
)
def test_hosts_that_are_refused(tmp_path, text, said):
    with pytest.raises(UserError, match=said):
        read_hosts(tmp_path, text)


def test_hosts_that_cannot_be_read(tmp_path):
    (tmp_path / "hosts.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is no text"):
        cluster.read_hosts(tmp_path / "hosts.txt")
    with pytest.raises(FileNotFoundError), cluster.connect("ssh:/no/such/file"):
        pass


SLURM = {
    "jobqueue.slurm.cores": 4,
    "jobqueue.slurm.memory": "8GB",
    "jobqueue.slurm.queue": "gpus",
    "jobqueue.slurm.account": "ours",
    "jobqueue.slurm.job-extra-directives": ["--gres=gpu:1"],
    "jobqueue.slurm.worker-extra-args": ["--lifetime", "1h"],
}


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_slurm_that_is_not_there_or_not_described(monkeypatch, tmp_path):
    pytest.importorskip("dask_jobqueue", reason="NOT RUN: needs dask-jobqueue")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no `sbatch` on PATH"), cluster.connect("slurm"):
        pass
    write_program(tmp_path / "sbatch", "#!/bin/sh\nexit 1\n")
    with pytest.raises(UserError, match=r"want cores: in .*jobqueue\.yaml"):
        cluster.make_slurm_cluster(1)
    cores = dask.config.set({"jobqueue.slurm.cores": 4})
    with cores, pytest.raises(UserError, match="want memory: in"):
        cluster.make_slurm_cluster(1)


@pytest.mark.slow
def test_the_jobs_that_slurm_gets(monkeypatch, tmp_path):
    """NOT RUN here: Slurm itself. In its place, an `sbatch` that starts the job on the spot."""
    pytest.importorskip("dask_jobqueue", reason="NOT RUN: needs dask-jobqueue")
    machine = Machine(tmp_path / "node")
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    write_program(
        tmp_path / "sbatch",
        f'#!/bin/sh\ncp "$1" {tmp_path}/job\nsetsid sh {tmp_path}/job > {tmp_path}/log 2>&1 &\n'
        f"echo $! > {tmp_path}/pid\necho Submitted batch job 7\n",
    )
    write_program(tmp_path / "scancel", f"#!/bin/sh\nkill -- -$(cat {tmp_path}/pid)\n")
    entry = Entry(tmp_path, "sweep")
    entry.folder.mkdir(parents=True)
    listener = Listener()
    config = dask.config.set({**SLURM, "jobqueue.slurm.python": str(machine.python)})
    with config, cluster.connect("slurm") as client:
        cluster.ClusterExecutor(client, entry).run(plan(1, 2), listener)
    assert [bool(outcome.record) for outcome in listener.outcomes] == [True, True]
    job = (tmp_path / "job").read_text()
    for line in ("#SBATCH -p gpus", "#SBATCH -A ours", "#SBATCH --gres=gpu:1"):
        assert line in job.splitlines()
    assert f"{machine.python} -m distributed.cli.dask_worker tcp://" in job
    assert "--lifetime 1h --resources GPU=1" in job


@pytest.mark.slow
def test_workers_by_ssh(monkeypatch, tmp_path, entry):
    pytest.importorskip("asyncssh", reason="NOT RUN: needs asyncssh")
    machine = Machine(tmp_path / "node")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "hosts.txt").write_text("node1 CUDA_VISIBLE_DEVICES=0\n")
    command = [sys.executable, str(HERE / "ssh_server.py"), str(tmp_path)]
    server = subprocess.Popen(command, env=machine.environment, stderr=subprocess.DEVNULL)
    try:
        wait_until((tmp_path / ".ssh" / "config").exists)
        listener = Listener()
        with cluster.connect(f"ssh:{tmp_path}/hosts.txt", python=str(machine.python)) as client:
            cluster.ClusterExecutor(client, entry).run(plan(1, 2), listener)
    finally:
        server.terminate()
        server.wait()
    assert [bool(outcome.record) for outcome in listener.outcomes] == [True, True]
    commands = (tmp_path / "commands").read_text().splitlines()
    started = [text for text in commands if f" {machine.python} -m distributed.cli" in text]
    assert len(started) == 2  # the scheduler, and the worker


def test_workers_that_do_not_come():
    class Client:
        def wait_for_workers(self, count: int, timeout: float) -> None:
            raise cluster.distributed.TimeoutError

        def scheduler_info(self) -> dict[str, object]:
            return {"workers": {"tcp://node1:1": {}}}

    with pytest.raises(UserError, match="1 of 2 workers came within 60 s"):
        cluster._wait_for_workers(Client(), 2)
