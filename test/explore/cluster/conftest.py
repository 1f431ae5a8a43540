"""A cluster of two machines, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="NOT RUN: needs Dask (pip install distributed)")

from ck_mlperf.explore.cluster import connect
from ck_mlperf.explore.entry import Entry

from .machines import Cluster


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.close()


@pytest.fixture
def two(machines: Cluster) -> Cluster:
    """Two machines, with a worker each."""
    machines.start("one", "two")
    return machines


@pytest.fixture
def client(two: Cluster) -> Iterator[Any]:
    with connect(two.address) as client:
        yield client


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    made = Entry(tmp_path, "sweep")
    made.folder.mkdir(parents=True)
    return made
