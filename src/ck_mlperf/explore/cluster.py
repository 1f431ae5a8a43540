"""Carry out scheduled runs on Dask's workers, and store what they record in the caller's entry.

A worker offers the resource GPU, one per GPU that it stands for (without GPUs, one for the
machine); a run takes one. If a worker dies, another one repeats its run, and that run alone: no
worker gets a run while it has one. What a worker sends is written under a name derived from the
run's, so a run that was finished twice is recorded once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dask
import distributed
import msgspec
from distributed.scheduler import KilledWorker

import ck_mlperf_remote
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import read_text, write_file
from ck_mlperf.explore.entry import Entry
from ck_mlperf.explore.runs import Outcome, ScheduledRun, Watcher, make_failure
from ck_mlperf.explore.worker import make_request
from ck_mlperf.results.accuracy_runs import name_accuracy_runs
from ck_mlperf.results.experiments import Failure
from ck_mlperf.results.kept_logs import unpack_kept

RESOURCE = "GPU"
SLURM, SSH = "slurm", "ssh:"
SYNTAX = "want tcp://HOST:PORT of a running scheduler, slurm, or ssh:FILE with a host a line"

_REMOTE = Path(ck_mlperf_remote.__file__).resolve()
# The dashboard is for this machine alone, and its usual port may be taken.
_SCHEDULER = {"dashboard_address": "127.0.0.1:0"}
# How long to wait for the runs in flight after Ctrl-C.
_GRACE_S = 20.0
_REGISTER_S = 60
_POLL_S = 1.0
_DASK_CONFIG = "~/.config/dask/jobqueue.yaml"
_FILE = re.compile(r"ckp-[0-9a-f]{16}(\.[0-9a-z_]{1,20}){1,2}\.json|pipeline\.json")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}")
# It goes through the shell of the other machine, in single quotes.
_VARIABLE = re.compile(r"([A-Z_][A-Z0-9_]*)=([\w./:,+@%-]*)", re.ASCII)


@contextlib.contextmanager
def connect(
    cluster: str, jobs: int = 1, python: str | None = None, timeout_s: float = 10
) -> Iterator[distributed.Client]:
    """A client of a checked cluster; a cluster that is started for it ends with it.

    cluster: as SYNTAX says. jobs: Slurm jobs, one worker each. python: the interpreter on the
    machines that ssh: names, None: as here. timeout_s: for the scheduler to answer. Raises
    UserError if there is no such cluster, or if one of its workers cannot carry out this
    repository's runs.
    """
    with contextlib.ExitStack() as made:
        address: Any = cluster
        if cluster == SLURM:
            address = made.enter_context(make_slurm_cluster(jobs))
        elif cluster.startswith(SSH):
            address = made.enter_context(make_ssh_cluster(Path(cluster.removeprefix(SSH)), python))
        elif not re.fullmatch(r"(tcp|tls)://\S+:\d+", cluster):
            raise UserError(f"--cluster={cluster}: {SYNTAX}")
        try:
            client = made.enter_context(distributed.Client(address, timeout=timeout_s))
        except (OSError, distributed.TimeoutError) as error:
            raise UserError(
                f"--cluster={cluster}: no scheduler answers there within {timeout_s:g} s "
                f"({error}). Start one: dask scheduler"
            ) from error
        if cluster.startswith(SSH):
            wait_for_workers(client, len(address.worker_spec))
        _check(client, waits=cluster == SLURM)
        yield client


def make_slurm_cluster(jobs: int) -> Any:
    """A dask_jobqueue.SLURMCluster of `jobs` jobs, described by Dask's own configuration."""
    from dask_jobqueue import SLURMCluster

    if shutil.which("sbatch") is None:
        raise UserError(
            f"--cluster={SLURM}: no `sbatch` on PATH. Call it on a machine that submits jobs"
        )
    described = dask.config.get("jobqueue.slurm")
    missing = [key for key in ("cores", "memory") if described[key] is None]
    if missing:
        raise UserError(
            f"--cluster={SLURM}: Dask does not know what to ask for a job: want {missing[0]}: in "
            f"{_DASK_CONFIG}, under jobqueue: slurm: (there also memory, queue, account, walltime, "
            "job-extra-directives: [--gres=gpu:1], ...)"
        )
    return SLURMCluster(
        n_workers=jobs,
        processes=1,
        scheduler_options={**_SCHEDULER, **described["scheduler-options"]},
        worker_extra_args=[*described["worker-extra-args"], "--resources", f"{RESOURCE}=1"],
    )


def make_ssh_cluster(path: Path, python: str | None) -> Any:
    """Workers on the hosts of a file (`read_hosts`), by SSH; the scheduler is on the first one."""
    from distributed.deploy.ssh import Scheduler, Worker

    hosts = read_hosts(path)
    try:
        import asyncssh  # noqa: F401
    except ImportError as error:
        raise UserError(f"--cluster={SSH}{path} needs asyncssh: pip install asyncssh") from error
    plain: dict[str, Any] = {"connect_options": {}, "remote_python": python}
    workers = {
        number: {
            "cls": Worker,
            "options": {
                **plain,
                "address": host,
                "kwargs": {"nthreads": 1, "resources": {RESOURCE: 1}, "env": variables},
            },
        }
        for number, (host, variables) in enumerate(hosts)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {**plain, "address": hosts[0][0], "kwargs": _SCHEDULER},
    }
    try:
        return distributed.SpecCluster(workers, scheduler, name="explore")
    except Exception as error:  # of SSH, the other Python or Dask
        raise UserError(
            f"--cluster={SSH}{path}: the cluster did not start: {error!r}. Want `ssh HOST "
            f"{python or sys.executable} -m distributed.cli.dask_spec --version` to work for each "
            "host without a question; --remote_python=PATH names another interpreter"
        ) from error


def read_hosts(path: Path) -> list[tuple[str, dict[str, str]]]:
    """The workers that a file describes: a host a line, then variables of the worker there.

        node1 CUDA_VISIBLE_DEVICES=0
        node1 CUDA_VISIBLE_DEVICES=1 CK_REPOS=/data/ck     # its second GPU

    Raises UserError for anything else.
    """
    try:
        lines = read_text(path).splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text: {error}") from error
    hosts = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        matches = [_VARIABLE.fullmatch(word) for word in words[1:]]
        if not (_HOST.fullmatch(words[0]) and all(matches)):
            raise UserError(
                f"{path}, line {number}: '{line.strip()[:100]}': want HOST NAME=VALUE..., such as "
                "node1 CUDA_VISIBLE_DEVICES=0"
            )
        variables = {match[1]: match[2] for match in matches if match}
        if (words[0], variables) in hosts:
            raise UserError(
                f"{path}, line {number}: the same worker as before; several of one host want "
                "CUDA_VISIBLE_DEVICES=NUMBER each"
            )
        hosts.append((words[0], variables))
    if not hosts:
        raise UserError(f"{path} names no host")
    return hosts


def wait_for_workers(client: distributed.Client, count: int) -> None:
    """Wait until the workers that were started have registered with the scheduler."""
    try:
        client.wait_for_workers(count, timeout=_REGISTER_S)
    except distributed.TimeoutError as error:
        there = len(client.scheduler_info()["workers"])
        raise UserError(
            f"{there} of {count} workers registered within {_REGISTER_S} s: can their machines "
            "reach the first one of the file, where the scheduler runs?"
        ) from error


def _check(client: distributed.Client, waits: bool) -> None:
    """Refuse a cluster if a worker has another version, or if no worker takes runs.

    waits: whether workers may still be starting.
    """
    versions = client.get_versions()
    ours = versions["client"]["host"]["python"].split(".")[:2]
    for address, there in versions["workers"].items():
        if there["host"]["python"].split(".")[:2] != ours:
            raise UserError(
                f"worker {address} has Python {there['host']['python']}; Dask wants the caller's, "
                f"{'.'.join(ours)}"
            )
    client.upload_file(str(_REMOTE))
    refused = []
    replies = client.run(ck_mlperf_remote.work, make_request(None), on_error="return")
    for address, reply in replies.items():
        if isinstance(reply, Exception):
            refused.append(f"worker {address}: {reply}")
        elif "refused" in json.loads(reply):
            refused.append(f"worker {address}: {json.loads(reply)['refused']}")
    if refused:
        raise UserError("\n".join(refused))
    if not waits and not _count_slots(client):
        raise UserError(
            f"no worker offers the resource {RESOURCE}: start one for each GPU, CUDA_VISIBLE_"
            f'DEVICES=0 dask worker ADDRESS --nthreads 1 --resources "{RESOURCE}=1"'
        )


def _count_slots(client: distributed.Client) -> int:
    slots: int = client.run_on_scheduler(ck_mlperf_remote.count_slots, RESOURCE)
    return slots


class ClusterExecutor:
    """Runs `ck benchmark` on a cluster's workers. entry: stores what they record.

    wait: returns the futures that are done, of some that are in flight; after a while none.
    """

    def __init__(
        self,
        client: distributed.Client,
        entry: Entry,
        wait: Callable[[Sequence[Any]], list[Any]] | None = None,
    ) -> None:
        self._client = client
        self._entry = entry
        self._wait = wait or _wait_for_some

    def run(self, runs: Sequence[ScheduledRun], watcher: Watcher) -> None:
        """See `Executor`. Raises UserError where a worker refuses or the scheduler is lost."""
        stop = distributed.Event(f"explore-{uuid.uuid4().hex}", client=self._client)
        left = deque(runs)
        in_flight: dict[Any, ScheduledRun] = {}
        try:
            while left or in_flight:
                for _ in range(min(len(left), _count_slots(self._client) - len(in_flight))):
                    run = left.popleft()
                    in_flight[self._submit(run, stop.name)] = run
                    watcher.started(run)
                for future in self._wait(list(in_flight)):
                    run = in_flight.pop(future)
                    watcher.ended(self._conclude(run, future))
        except (OSError, CancelledError) as error:
            raise UserError(
                f"the scheduler was lost ({error!r}). What was finished is recorded; the same "
                "command continues"
            ) from error
        except BaseException:
            self._end(stop, list(in_flight))
            raise

    def _submit(self, run: ScheduledRun, stop: str) -> Any:
        return self._client.submit(
            ck_mlperf_remote.work,
            make_request(run),
            stop,
            key=f"explore-{run.id}",
            resources={RESOURCE: 1},
            pure=False,
        )

    def _conclude(self, run: ScheduledRun, future: Any) -> Outcome:
        try:
            reply = json.loads(future.result())
        except KilledWorker as error:
            self._entry.log_path(run.id).write_text(f"{error}\n")
            said = f"every worker that ran it died: {error}"
            return make_failure(run, datetime.now(timezone.utc), 0, 1, said)
        except RuntimeError as error:
            reply = {"refused": str(error)}
        if "refused" in reply:
            raise UserError(f"a worker cannot carry out {run.description}: {reply['refused']}")
        if "failure" in reply:
            self._entry.log_path(run.id).write_text(reply["log"])
            failure = msgspec.convert({**reply["failure"], "command": run.argv}, Failure)
            return Outcome(run, reply["wall_s"], failure=failure)
        unpack_kept(self._entry.folder, reply["logs"], reply["host"])
        self._keep(run, reply["files"])
        record = self._entry.read_record(run.id)
        if record is None:
            raise UserError(f"{reply['host']} sent no record of {run.description}")
        return Outcome(run, reply["wall_s"], record=record)

    def _keep(self, run: ScheduledRun, files: Mapping[str, str]) -> None:
        """Write the files of the run's point; last the one by which CK lists it."""
        point = hashlib.sha256(run.id.encode()).hexdigest()[:16]
        for name in sorted(files, key=lambda name: name.endswith(".0001.json")):
            if not _FILE.fullmatch(name):
                raise UserError(f"a worker sent a file {name!r}, which does not belong to a point")
            path = self._entry.folder / re.sub("^ckp-.{16}", f"ckp-{point}", name)
            content = files[name]
            if name.endswith(".0001.json"):
                content = name_accuracy_runs(self._entry.folder, content)
            if name != "pipeline.json" or not path.exists():
                write_file(path, content)

    def _end(self, stop: distributed.Event, futures: list[Any]) -> None:
        """End the runs in flight, and wait for their end."""
        with contextlib.suppress(OSError, CancelledError):
            stop.set()
            end = time.monotonic() + _GRACE_S
            while any(not future.done() for future in futures) and time.monotonic() < end:
                time.sleep(0.1)


def _wait_for_some(futures: Sequence[Any]) -> list[Any]:
    if not futures:
        time.sleep(_POLL_S)
        return []
    with contextlib.suppress(distributed.TimeoutError):
        return list(distributed.wait(futures, _POLL_S, "FIRST_COMPLETED").done)
    return []
