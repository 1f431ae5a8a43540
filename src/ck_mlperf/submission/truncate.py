"""Accuracy logs, truncated as MLPerf's truncate_accuracy_log.py does it.

A submission has the beginning and the end of each, and its hash; the whole is kept by who submits,
in case MLPerf asks for it.
"""

from __future__ import annotations

import hashlib

_KEPT_BYTES = 4096


def truncate(content: bytes) -> bytes:
    """The first and the last 4096 bytes; a log of fewer than that as it is."""
    if len(content) < _KEPT_BYTES:
        return content
    return content[:_KEPT_BYTES] + b"\n\n...\n\n" + content[-_KEPT_BYTES:]


def make_hash_line(content: bytes) -> str:
    """What accuracy.txt ends in: the hash of the whole log, after an empty line."""
    return f"\nhash={hashlib.sha256(content).hexdigest()}\n"
