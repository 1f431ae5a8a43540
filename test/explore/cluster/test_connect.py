"""Clusters by their addresses, by a file of hosts, and by Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dask
import distributed
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.explore import cluster

from ...builders.waiting import wait_until
from .machines import HERE, Listener, Machine, schedule


@pytest.mark.parametrize("address", ["", "here", "http://a:1", "tcp://a", "tcp://a b:1", "pbs"])
def test_an_address_that_is_none(address):
    with pytest.raises(UserError, match="want tcp://HOST:PORT"), cluster.connect(address):
        pass


def test_nobody_at_the_address():
    said = "no scheduler answers there within 0.5 s"
    connection = cluster.connect("tcp://127.0.0.1:9", timeout_s=0.5)
    with pytest.raises(UserError, match=said), connection:
        pass


def test_no_worker_for_us():
    with distributed.LocalCluster(
        n_workers=0, processes=False, dashboard_address="127.0.0.1:0", protocol="tcp"
    ) as local:
        said = "no worker offers the resource GPU: start one for each GPU"
        with pytest.raises(UserError, match=said), cluster.connect(local.scheduler_address):
            pass


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
        ("", "names no host"),
        ("# none\n", "names no host"),
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
    with pytest.raises(UserError, match="is not text"):
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
def test_the_jobs_that_slurm_gets(monkeypatch, tmp_path, entry):
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
    listener = Listener()
    config = dask.config.set({**SLURM, "jobqueue.slurm.python": str(machine.python)})
    with config, cluster.connect("slurm") as client:
        cluster.ClusterExecutor(client, entry).run(schedule(1, 2), listener)
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
            cluster.ClusterExecutor(client, entry).run(schedule(1, 2), listener)
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

    with pytest.raises(UserError, match="1 of 2 workers registered within 60 s"):
        cluster.wait_for_workers(Client(), 2)
