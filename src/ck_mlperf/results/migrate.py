"""Records of any version, read as records of the current one."""

from __future__ import annotations

from typing import Any

import msgspec

from ck_mlperf.common.decode import decode_json
from ck_mlperf.common.errors import UserError
from ck_mlperf.results.record import SCHEMA_VERSION, Record


class _Versioned(msgspec.Struct):
    schema_version: Any = msgspec.UNSET


def read_record(content: bytes | msgspec.Raw) -> Record | None:
    """The record of a run in JSON; None: it is JSON of another program.

    What an older version did not note is None. Raises UserError, which says what is wrong and not
    in which file, for a newer version and for a record of which a part is missing or of a wrong
    type. What CK or a user put beside its parts is ignored.
    """
    try:
        return msgspec.json.decode(content, type=Record)
    except (msgspec.DecodeError, ValueError):  # the latter where bytes are no text
        return _read_other(content)


def _read_other(content: bytes | msgspec.Raw) -> Record | None:
    """As `read_record`, of what is not simply a record of the current version."""
    try:
        version = decode_json(content, _Versioned).schema_version
    except msgspec.ValidationError:
        return None
    except ValueError as error:
        raise UserError(f"not JSON: {error}") from error
    if version is msgspec.UNSET:
        return None
    if type(version) is not int or version < 1:
        raise UserError(f"not a record of a run: its schema_version is {version!r}")
    if version > SCHEMA_VERSION:
        raise UserError(f"made by a newer ck-mlperf: version {version}; update this checkout")
    try:
        if version == SCHEMA_VERSION:
            return decode_json(content, Record)
        return msgspec.convert(_migrate(decode_json(content, dict[str, Any])), Record)
    except msgspec.ValidationError as error:
        raise UserError(f"not a record of a run of version {version}: {error}") from error
    except ValueError as error:
        raise UserError(f"not JSON: {error}") from error


def _migrate(record: dict[str, Any]) -> dict[str, Any]:
    """Version 2 notes the conditions, and always the devices. What 3 adds is None by default."""
    engine = record.get("engine")
    if record["schema_version"] == 1:
        if isinstance(engine, dict):
            engine.setdefault("devices", None)
        record["conditions"] = None
    return {**record, "schema_version": SCHEMA_VERSION}
