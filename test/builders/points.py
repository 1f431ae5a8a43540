"""Points as `ck benchmark --record` keeps them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .records import make_json


@pytest.fixture
def record() -> dict[str, Any]:
    """A record of the current version as JSON has it: see `make_json`."""
    return make_json()


@pytest.fixture
def save_point(tmp_path: Path) -> Callable[..., Path]:
    """save_point(records..., experiment=, repository=, uid=): as `ck benchmark --record` does.

    records: as JSON has them.
    """
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
        path.write_text(json.dumps({"characteristics_list": [{"run": run} for run in records]}))
        for other in ("flat", "features", "features_flat"):
            path.with_name(path.name.replace(".0001.", f".{other}.")).write_text("{}")
        return path

    return save
