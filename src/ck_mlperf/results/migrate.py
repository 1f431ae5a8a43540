"""Records of older versions as the current version has them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.results.record import SCHEMA_VERSION

_SCHEMA = Path(__file__).with_name("record.schema.json")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def migrate(record: Any) -> dict[str, Any]:
    """`record`, of JSON and of any version, as one of the current version.

    What an older version did not note is None. The argument is left as it is. Raises UserError,
    which says what is wrong and not in which file, for a newer version and for what is no record.
    """
    current = convert(record)
    problem = _find_problem(current, _load_schema(), "")
    if problem:
        raise UserError(f"no record of a run of version {record['schema_version']}: {problem}")
    return current


def convert(record: Any) -> dict[str, Any]:
    """As `migrate`, for a reader of thousands: only the version is checked, and no other part."""
    version = record.get("schema_version") if isinstance(record, Mapping) else None
    if type(version) is not int or version < 1:
        raise UserError("no record of a run: it is no JSON object with a schema_version")
    if version > SCHEMA_VERSION:
        raise UserError(f"made by a newer ck-mlperf: version {version}; update this checkout")
    return _from_version_1(dict(record)) if version == 1 else dict(record)


def _from_version_1(record: dict[str, Any]) -> dict[str, Any]:
    """Version 2 notes the conditions, and always the devices; and it has two more variables."""
    migrated = {**record, "schema_version": 2, "conditions": None}
    engine, settings = record.get("engine"), record.get("settings")
    if isinstance(engine, Mapping):
        migrated["engine"] = {"devices": None, **engine}
    if isinstance(settings, Mapping) and isinstance(settings.get("ours"), Mapping):
        unset = {"value": None, "origin": "default"}
        added = {"CK_CUDA_DEVICES": unset, "CK_EXPLORE_RUN": unset}
        migrated["settings"] = {**settings, "ours": {**added, **settings["ours"]}}
    return migrated


@functools.cache
def _load_schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    return schema


def _find_problem(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    """The first part that is missing or of another type than `schema` says; where: its path.

    Only that: what reads a record relies on its shape, and not on ranges and patterns.
    """
    if not schema:
        return None
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} is none of {', '.join(schema['enum'])}"
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(_is_of(value, name) for name in types):
        return f"{where or 'it'} is not of type {' or '.join(types)}"
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                return f"{_join(where, name)} is missing"
        known, other = schema.get("properties", {}), schema.get("additionalProperties") or {}
        parts = [(part, known.get(name, other), _join(where, name)) for name, part in value.items()]
    elif isinstance(value, list):
        parts = [(part, schema.get("items", {}), f"{where}[{at}]") for at, part in enumerate(value)]
    else:
        return None
    problems = (_find_problem(*part) for part in parts)
    return next((problem for problem in problems if problem), None)


def _is_of(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name])


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
