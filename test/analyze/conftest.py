"""Records as CK keeps them, and rows of them."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ck_mlperf.analyze.rows import make_run
from ck_mlperf.analyze.runs import Run
from ck_mlperf.results.record import SCHEMA_VERSION

RECORDS = Path(__file__).resolve().parents[1] / "data" / "records"


def read_record(version: int) -> dict[str, Any]:
    return json.loads((RECORDS / f"version-{version}-first.json").read_text())


@pytest.fixture
def record() -> dict[str, Any]:
    """A record of the current version: MultiStream, SubmissionRun, digits on the CPU."""
    return read_record(SCHEMA_VERSION)


@pytest.fixture
def first_record() -> dict[str, Any]:
    """A record of version 1."""
    return read_record(1)


@pytest.fixture
def row() -> Callable[..., Run]:
    """row(column=value, ...): the record's row, but for these columns; each starts later."""
    base = make_run(read_record(SCHEMA_VERSION), "digits", "ckp-0.0001.json", 0)
    made = 0

    def make(**columns: Any) -> Run:
        nonlocal made
        made += 1
        start = base.start + timedelta(seconds=made)
        return dataclasses.replace(base, **{"start": start, **columns})

    return make


@pytest.fixture
def save_point(tmp_path: Path) -> Callable[..., Path]:
    """save_point(records..., experiment=, repository=, uid=): as `ck benchmark --record` does."""
    count = 0

    def save(
        *records: Any,
        experiment: str = "digits",
        repository: Path = tmp_path / "local",
        uid: str | None = None,
    ) -> Path:
        nonlocal count
        count += 1
        entry = repository / "experiment" / experiment
        (entry / ".cm").mkdir(parents=True, exist_ok=True)
        (entry / ".cm" / "meta.json").write_text("{}")
        path = entry / f"ckp-{uid or f'{count:016x}'}.0001.json"
        point = {"characteristics_list": [{"run": copy.deepcopy(record)} for record in records]}
        path.write_text(json.dumps(point))
        for other in ("flat", "features", "features_flat"):
            path.with_name(path.name.replace(".0001.", f".{other}.")).write_text("{}")
        return path

    return save


class Server:
    """`ck serve loadgen` of a repository, in a process of its own."""

    def __init__(self, repository: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ck_mlperf", "serve", "--port=0", *options],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(sys.path), "CK_LOCAL_REPO": str(repository)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        self.url = line.split()[0]
        self.port = int(self.url.split(":")[2].strip("/"))

    def stop(self) -> tuple[int, str]:
        """Ctrl-C. Returns the exit code, and what was on stderr."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """serve(repository): a Server of it, which ends with the test."""
    servers = []

    def start(repository: Path = tmp_path / "local", *options: str) -> Server:
        servers.append(Server(repository, *options))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


@pytest.fixture(scope="session")
def idle_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Server of an empty repository, for tests that only ask."""
    server = Server(tmp_path_factory.mktemp("repository"))
    yield server
    server.stop()
