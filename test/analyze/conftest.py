"""Records as CK keeps them, and rows of them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ck_mlperf.analyze.rows import make_run
from ck_mlperf.analyze.runs import Run
from ck_mlperf.analyze.serve import HEADER_S, LivePage, PageServer
from ck_mlperf.results.experiments import ExperimentFile

from ..builders.records import make_record


@pytest.fixture
def row() -> Callable[..., Run]:
    """row(column=value, ...): the record's row, but for these columns; each starts later."""
    base = make_run(make_record(), ExperimentFile("digits", Path("ckp-0.0001.json")), 0)
    made = 0

    def make(**columns: Any) -> Run:
        nonlocal made
        made += 1
        start = base.start + timedelta(seconds=made)
        return dataclasses.replace(base, **{"start": start, **columns})

    return make


class Server:
    """The server of `ck serve loadgen`, in a thread."""

    def __init__(self, repository: Path, *patterns: str, header_s: float = HEADER_S) -> None:
        page = LivePage([repository], patterns)
        page.refresh()
        self._server = PageServer(page, 0, header_s)
        self.port = self._server.port
        self.url = f"http://127.0.0.1:{self.port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """serve(repository, pattern...): a Server of it, which ends with the test."""
    servers = []

    def start(
        repository: Path = tmp_path / "local", *patterns: str, header_s: float = HEADER_S
    ) -> Server:
        servers.append(Server(repository, *patterns, header_s=header_s))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def idle_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Server of an empty repository, for tests that only ask."""
    server = Server(tmp_path_factory.mktemp("repository"))
    yield server
    server.stop()
