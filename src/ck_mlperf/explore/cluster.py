"""Carry out planned runs on Dask's workers, and keep what they recorded in the caller's entry.

A worker offers the resource GPU, one for each GPU that it stands for (on machines without any, for
the machine): a run takes one. A run whose worker dies is run again by another one, and only that:
no run is given to a worker that has one already. What a worker sends is written under a name that
follows from the run's, so that a run that was finished twice is there once.
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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dask
import distributed
from distributed.scheduler import KilledWorker

import ck_mlperf_remote
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import write_file
from ck_mlperf.explore.entry import Entry
from ck_mlperf.explore.runs import Failure, Outcome, PlannedRun, Watcher
from ck_mlperf.explore.worker import make_request

RESOURCE = "GPU"
SLURM, SSH = "slurm", "ssh:"
SYNTAX = "want tcp://HOST:PORT of a running scheduler, slurm, or ssh:FILE with a host a line"

_REMOTE = Path(ck_mlperf_remote.__file__).resolve()
# Nobody else's business; and the usual port may be taken.
_SCHEDULER = {"dashboard_address": "127.0.0.1:0"}
# The longest that a run in flight is waited for after Ctrl-C.
_GRACE_S = 20.0
_CONNECT_S = 10
_REGISTER_S = 60
_POLL_S = 1.0
_DASK_CONFIG = "~/.config/dask/jobqueue.yaml"
_FILE = re.compile(r"ckp-[0-9a-f]{16}(\.[0-9a-z_]{1,20}){1,2}\.json|pipeline\.json")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}")
# It goes through the shell of the other machine, in single quotes.
_VARIABLE = re.compile(r"([A-Z_][A-Z0-9_]*)=([\w./:,+@%-]*)", re.ASCII)


@contextlib.contextmanager
def connect(cluster: str, jobs: int = 1, python: str | None = None) -> Iterator[distributed.Client]:
    """A client of a cluster that was checked; a cluster that is made for it ends with it.

    cluster: as SYNTAX says. jobs: Slurm jobs, one worker each. python: the interpreter on the
    machines that ssh: names, None: as here. Raises UserError where there is no such cluster, or
    where a worker that is there cannot carry out this repository's runs.
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
            client = made.enter_context(distributed.Client(address, timeout=_CONNECT_S))
        except (OSError, distributed.TimeoutError) as error:
            raise UserError(
                f"--cluster={cluster}: no scheduler answers there within {_CONNECT_S} s ({error}). "
                "Start one: dask scheduler"
            ) from error
        if cluster.startswith(SSH):
            _wait_for_workers(client, len(address.worker_spec))
        _check(client, waits=cluster == SLURM)
        yield client


def make_slurm_cluster(jobs: int) -> Any:
    """A dask_jobqueue.SLURMCluster of `jobs` jobs, as Dask's own configuration describes them."""
    from dask_jobqueue import SLURMCluster

    if shutil.which("sbatch") is None:
        raise UserError(
            f"--cluster={SLURM}: no `sbatch` on PATH. Call it on a machine that submits jobs"
        )
    described = dask.config.get("jobqueue.slurm")
    missing = [key for key in ("cores", "memory") if described[key] is None]
    if missing:
        raise UserError(
            f"--cluster={SLURM}: Dask does not know what a job is to have: want {missing[0]}: in "
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
    except Exception as error:  # whatever SSH, the other Python or Dask has to say
        raise UserError(
            f"--cluster={SSH}{path}: no cluster came of it: {error!r}. Want `ssh HOST "
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
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text: {error}") from error
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
        raise UserError(f"{path}: no host in it")
    return hosts


def _wait_for_workers(client: distributed.Client, count: int) -> None:
    """Wait for workers that were started, which the scheduler hears of a moment later."""
    try:
        client.wait_for_workers(count, timeout=_REGISTER_S)
    except distributed.TimeoutError as error:
        there = len(client.scheduler_info()["workers"])
        raise UserError(
            f"{there} of {count} workers came within {_REGISTER_S} s of their start: can their "
            "machines reach the first one of the file, where the scheduler is?"
        ) from error


def _check(client: distributed.Client, waits: bool) -> None:
    """Refuse a cluster of which a worker is another version, or which has none for us.

    waits: whether it is no wonder that none is there yet.
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
    """Runs `ck benchmark` on a cluster's workers. entry: where what they recorded is kept."""

    def __init__(self, client: distributed.Client, entry: Entry) -> None:
        self._client = client
        self._entry = entry

    def run(self, runs: Sequence[PlannedRun], watcher: Watcher) -> None:
        """See `Executor`. Raises UserError where a worker refuses or the scheduler is lost."""
        stop = distributed.Event(f"explore-{uuid.uuid4().hex}", client=self._client)
        left = deque(runs)
        in_flight: dict[Any, PlannedRun] = {}
        try:
            while left or in_flight:
                for _ in range(min(len(left), _count_slots(self._client) - len(in_flight))):
                    run = left.popleft()
                    in_flight[self._submit(run, stop.name)] = run
                    watcher.started(run)
                for future in _wait_for_some(list(in_flight)):
                    run = in_flight.pop(future)
                    watcher.ended(self._conclude(run, future))
        except (OSError, CancelledError) as error:
            raise UserError(
                f"the scheduler was lost ({error!r}). What was finished is there; the same command "
                "continues"
            ) from error
        except BaseException:
            self._end(stop, list(in_flight))
            raise

    def _submit(self, run: PlannedRun, stop: str) -> Any:
        return self._client.submit(
            ck_mlperf_remote.work,
            make_request(run),
            stop,
            key=f"explore-{run.id}",
            resources={RESOURCE: 1},
            pure=False,
        )

    def _conclude(self, run: PlannedRun, future: Any) -> Outcome:
        try:
            reply = json.loads(future.result())
        except KilledWorker as error:
            return self._fail_without_word(run, str(error))
        except RuntimeError as error:
            reply = {"refused": str(error)}
        if "refused" in reply:
            raise UserError(f"a worker cannot carry out {run.description}: {reply['refused']}")
        if "failure" in reply:
            self._entry.log_path(run.id).write_text(reply["log"])
            failure = replace(Failure(**reply["failure"]), command=run.argv)
            return Outcome(run, reply["wall_s"], failure=failure)
        self._keep(run, reply["files"])
        record = self._entry.read_record(run.id)
        if record is None:
            raise UserError(f"{reply['host']} sent no record of {run.description}")
        return Outcome(run, reply["wall_s"], record=record)

    def _keep(self, run: PlannedRun, files: Mapping[str, str]) -> None:
        """Write the files of the run's point, what CK lists it by last."""
        point = hashlib.sha256(run.id.encode()).hexdigest()[:16]
        for name in sorted(files, key=lambda name: name.endswith(".0001.json")):
            if not _FILE.fullmatch(name):
                raise UserError(f"a worker sent a file {name!r}, which is none of a point")
            path = self._entry.folder / re.sub("^ckp-.{16}", f"ckp-{point}", name)
            if name != "pipeline.json" or not path.exists():
                write_file(path, files[name])

    def _fail_without_word(self, run: PlannedRun, error: str) -> Outcome:
        self._entry.log_path(run.id).write_text(error + "\n")
        failure = Failure(
            explore_run=run.id,
            start=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            wall_s=0,
            exit_code=1,
            error=f"every worker that ran it died: {error}",
            program=run.program,
            environment=run.environment,
            weights=run.point.weights,
            command=run.argv,
        )
        return Outcome(run, 0, failure=failure)

    def _end(self, stop: distributed.Event, futures: list[Any]) -> None:
        """End the runs in flight, and wait for that."""
        with contextlib.suppress(OSError, CancelledError):
            stop.set()
            end = time.monotonic() + _GRACE_S
            while any(not future.done() for future in futures) and time.monotonic() < end:
                time.sleep(0.1)


def _wait_for_some(futures: list[Any]) -> list[Any]:
    """The futures that are done; after a while none."""
    if not futures:
        time.sleep(_POLL_S)
        return []
    with contextlib.suppress(distributed.TimeoutError):
        return list(distributed.wait(futures, _POLL_S, "FIRST_COMPLETED").done)
    return []
