"""The files of an ONNX model: the model itself, and those that its external data is in.

CK's hooks import this module: it needs the standard library alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ck_mlperf.common.files import hash_file

_State = tuple[str, int, int, int, int]


def hash_model(path: Path, external_files: Sequence[str] = ()) -> str:
    """The sha256 of a model, in hex: of its file, and of its external data where it has any.

    external_files: relative to the model's folder, as `onnx_facts.external_files` lists them.
    """
    return combine_hashes(hash_file(path), path, external_files)


def combine_hashes(model_sha256: str, path: Path, external_files: Sequence[str]) -> str:
    """The same, where the sha256 of the file `path` itself is known."""
    if not external_files:
        return model_sha256
    lines = [f"{hash_file(path.parent / name)} {name}\n" for name in sorted(external_files)]
    return hashlib.sha256("".join([f"{model_sha256}\n", *lines]).encode()).hexdigest()


def read_state(path: Path, external_files: Sequence[str] = ()) -> list[_State]:
    """What is another after any of the files was written to: name, size, times in ns, inode."""
    states = []
    for name in ("", *sorted(external_files)):
        status = (path.parent / name if name else path).stat()
        times = status.st_mtime_ns, status.st_ctime_ns
        states.append((name, status.st_size, *times, status.st_ino))
    return states
