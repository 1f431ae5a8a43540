"""Records as CK keeps them, and rows of them."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from analyze_helper.rows import make_run
from analyze_helper.runs import Run
from loadgen_helper.record import SCHEMA_VERSION

RECORDS = Path(__file__).resolve().parents[2] / "data" / "records"


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
