"""Runs on Dask's workers: a real scheduler, workers in processes of their own, made-up runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from distributed.scheduler import KilledWorker

from ck_mlperf.common.errors import UserError
from ck_mlperf.explore import cluster
from ck_mlperf.explore.entry import Entry
from ck_mlperf.explore.runs import Outcome, ScheduledRun
from ck_mlperf.results.kept_logs import read_kept

from ...builders.waiting import wait_until
from .machines import ROOT, Listener, schedule


def count_files(entry: Entry) -> int:
    return len([path for path in entry.folder.iterdir() if path.is_file()])


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_each_run_is_recorded_once_and_a_failed_one_is_not_tried_again(two, client, entry):
    for machine in two.machines.values():
        machine.behave(any=0.2, batch_3="fail")
    runs, listener = schedule(1, 2, 3, 4), Listener()
    cluster.ClusterExecutor(client, entry).run(runs, listener)
    assert listener.begun == runs
    assert {outcome.run.id for outcome in listener.outcomes} == {run.id for run in runs}
    (failed,) = [outcome for outcome in listener.outcomes if outcome.failure]
    assert failed.failure.error == "the model takes at most 3 images\n  at once"
    assert failed.failure.exit_code == 2
    assert failed.failure.command == list(runs[2].argv)
    assert failed.run.configuration.batch == 3
    assert "CK's own words" in entry.log_path(failed.run.id).read_text()
    for outcome in listener.outcomes:
        if outcome is not failed:
            assert outcome.record.samples_per_second == 1234.5
            log = read_kept(entry.folder, outcome.record.logs[0])
            assert outcome.run.id in log.decode()
    assert set(entry.list_recorded()) == {run.id for run in runs} - {failed.run.id}
    assert count_files(entry) == 4
    one, other = (machine.calls("begins") for machine in two.machines.values())
    assert one  # both worked
    assert other
    assert len(one + other) == 4
    for machine in two.machines.values():
        assert not list(machine.experiments.glob("[!.]*"))
    # A run that is finished twice is one point.
    (again,) = schedule(1)
    cluster.ClusterExecutor(client, entry).run([again], listener)
    assert count_files(entry) == 4


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_the_retry_of_its_run(two, client, entry):
    for machine in two.machines.values():
        machine.behave(any=0.1, batch_12=1)
    runs, listener = schedule(11, 12, 13), Listener()
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
    assert count_files(entry) == 3
    wait_until(lambda: not list(two.machines[name].experiments.glob("[!.]*")))


@pytest.mark.slow
def test_an_interruption_ends_the_runs_in_flight(two, client, entry):
    for machine in two.machines.values():
        machine.behave(any=60)

    class Impatient(Listener):
        def started(self, run: ScheduledRun) -> None:
            super().started(run)
            if len(self.begun) == 2:
                for machine in two.machines.values():
                    wait_until(lambda machine=machine: machine.calls("begins"))
                raise KeyboardInterrupt

    listener = Impatient()
    with pytest.raises(KeyboardInterrupt):
        cluster.ClusterExecutor(client, entry).run(schedule(21, 22, 23), listener)
    for machine in two.machines.values():
        ((_, pid),) = machine.calls("begins")
        assert not is_running(pid)
        assert not list(machine.experiments.glob("[!.]*"))
    assert not listener.outcomes
    assert count_files(entry) == 0


@pytest.mark.slow
def test_another_version_is_refused_before_anything_is_run(two, tmp_path):
    other = tmp_path / "ck-mlperf"
    shutil.copytree(ROOT / "src", other / "src")
    two.add("other", checkout=other)
    try:
        two.wait()
        said = rf"(?s)worker tcp://.*{other} is another version of this repository"
        with pytest.raises(UserError, match=said), cluster.connect(two.address):
            pass
    finally:
        two.remove("other")


@pytest.mark.slow
def test_a_scheduler_that_is_lost(two, client, entry):
    for machine in two.machines.values():
        machine.behave(any=60)

    class Killer(Listener):
        def started(self, run: ScheduledRun) -> None:
            wait_until(lambda: any(machine.calls("begins") for machine in two.machines.values()))
            two.scheduler.kill()

    with pytest.raises(UserError, match="the scheduler was lost"):
        cluster.ClusterExecutor(client, entry).run(schedule(1, 2), Killer())
    begun = [call for machine in two.machines.values() for call in machine.calls("begins")]
    assert begun
    for _, pid in begun:
        wait_until(lambda pid=pid: not is_running(pid))


def test_when_every_worker_that_runs_it_dies(entry):
    """Dask gives a run up after some workers; the sweep has then a failure, and goes on."""

    class Future:
        def result(self) -> str:
            raise KilledWorker("explore-x", SimpleNamespace(address="tcp://node1:1"), 2)

    class Client:
        def run_on_scheduler(self, function: object, resource: str) -> int:
            return 1

        def submit(self, *arguments: object, **options: object) -> Future:
            return Future()

    listener = Listener()
    cluster.ClusterExecutor(Client(), entry, wait=list).run(schedule(1, 2), listener)
    first, second = (outcome.failure for outcome in listener.outcomes)
    assert first.error.startswith("every worker that ran it died: ")
    assert "on 3 different workers" in first.error
    assert first.explore_run != second.explore_run
