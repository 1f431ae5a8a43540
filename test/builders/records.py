"""Records of runs: a real one, with changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ck_mlperf.results.migrate import read_record
from ck_mlperf.results.record import SCHEMA_VERSION, Record

RECORDS = Path(__file__).resolve().parents[1] / "data" / "records"
# The note of a run of a sweep that failed.
FAILURE = {
    "format": 1,
    "explore_run": "a1b2-3",
    "start": "2026-03-01T10:30:00+00:00",
    "wall_s": 3.5,
    "exit_code": 2,
    "error": "error: no plan for this GPU",
    "program": "image-classification-tensorrt-loadgen-py",
    "environment": {"CK_LOADGEN_SCENARIO": "Server", "CK_EXPLORE_RUN": "a1b2-3"},
    "weights": "model,tensorrt,resnet,int8,maxbatch.8",
    "command": ["ck", "benchmark"],
}

# A model's recipe, and what a library says of itself.
FREE = (("model", "recipe"), ("engine", "options"))


def make_json(version: int = SCHEMA_VERSION, **changes: Any) -> dict[str, Any]:
    """The first record of a version as JSON has it, with `changes`: parts within parts.

    It is of MultiStream, SubmissionRun, digits on the CPU.
    """
    text = (RECORDS / f"version-{version}-first.json").read_text(encoding="utf-8")
    return _merge(json.loads(text), changes)


def make_record(version: int = SCHEMA_VERSION, **changes: Any) -> Record:
    """The same as a record: `make_record(engine={"batch": 3}).engine.batch == 3`."""
    record = read_record(json.dumps(make_json(version, **changes)).encode())
    assert record is not None
    return record


def list_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to each part of a record's JSON, as keys and indices; not into what is not ours."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    paths = []
    for key, part in items:
        paths.append((*path, key))
        if isinstance(part, (dict, list)) and paths[-1] not in FREE:
            paths += list_paths(part, (*path, key))
    return paths


def is_optional(path: tuple[Any, ...]) -> bool:
    """Whether a record may lack the part at `path`, as older ones of its version do."""
    parts: list[type] = [Record]
    field = None
    for key in path:
        if isinstance(key, str) and parts:
            (field,) = (f for f in msgspec.structs.fields(parts[0]) if f.name == key)
            parts = list_structs(msgspec.inspect.type_info(field.type))
    return field is not None and not field.required and field.name == path[-1]


def list_structs(info: Any) -> list[type]:
    """The parts of a record in a field's type."""
    if isinstance(info, msgspec.inspect.StructType):
        return [info.cls]
    if isinstance(info, msgspec.inspect.UnionType):
        return [cls for part in info.types for cls in list_structs(part)]
    if isinstance(info, msgspec.inspect.ListType):
        return list_structs(info.item_type)
    if isinstance(info, msgspec.inspect.Metadata):
        return list_structs(info.type)
    return []


def find_holder(record: Any, path: tuple[Any, ...]) -> Any:
    """What has the part at `path`, under the path's last key."""
    for key in path[:-1]:
        record = record[key]
    return record


def _merge(old: Any, new: Any) -> Any:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{name: _merge(old.get(name), part) for name, part in new.items()}}
    return new
