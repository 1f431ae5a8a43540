from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest


@pytest.fixture(scope="session")
def record_schema() -> dict[str, Any]:
    """The schema of a record, as it stands in the repository."""
    return json.loads(files("ck_mlperf.results").joinpath("record.schema.json").read_text())
