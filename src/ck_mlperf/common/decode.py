"""JSON, read as values of declared types."""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

T = TypeVar("T")


def decode_json(content: bytes | msgspec.Raw, kind: type[T]) -> T:
    """The value of `kind` that `content` holds.

    Python's writer, and so CK's, goes beyond JSON: its NaN and Infinity are read as strings, which
    no figure takes, its halves of surrogate pairs as `?`.
    Raises msgspec.ValidationError, which names the field, where a value is of another type;
    another ValueError where it is not JSON, or nested too deeply.
    """
    try:
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError:
            parsed = json.loads(bytes(content), parse_constant=str)
            plain = json.dumps(parsed, ensure_ascii=False).encode(errors="replace")
            return msgspec.json.decode(plain, type=kind)
    except RecursionError:
        raise ValueError("nested too deeply") from None
