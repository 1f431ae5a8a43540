"""The files of an ONNX model: the model itself, and those that its external data is in.

External data is looked up beside the model's own file, also where the model is named by a link to
it. CK's hooks import this module: it needs the standard library alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ck_mlperf.common.files import MOST_ONNX_BYTES, hash_file, read_regular, read_state

State = tuple[str, int, int, int, int]
# The key in a tensor's external_data, as protobuf writes it. Something else may look the same.
_LOCATION = b"\n\x08location"


def hash_model(path: Path, external_files: Sequence[str] = ()) -> str:
    """The sha256 of a model, in hex: of its file, and of its external data where it has any.

    external_files: relative to the model's folder, as `onnx_facts.external_files` lists them.
    """
    return combine_hashes(hash_file(path), path, external_files)


def combine_hashes(model_sha256: str, path: Path, external_files: Sequence[str]) -> str:
    """The same, where the sha256 of the file `path` itself is known."""
    if not external_files:
        return model_sha256
    folder = path.resolve().parent
    lines = [f"{hash_file(folder / name)} {name}\n" for name in sorted(external_files)]
    return hashlib.sha256("".join([f"{model_sha256}\n", *lines]).encode()).hexdigest()


def read_states(path: Path, external_files: Sequence[str] = ()) -> list[State]:
    """The name and the `files.read_state` of each of the model's files; its own has the name ''."""
    folder = path.resolve().parent
    others = [(name, *read_state(folder / name)) for name in sorted(external_files)]
    return [("", *read_state(path)), *others]


def is_in_state(path: Path, states: Sequence[Sequence[Any]]) -> bool:
    """Whether nobody has written to a model's files since `read_states` gave `states`.

    These may have been JSON meanwhile.
    """
    try:
        return read_states(path, [name for name, *_ in states[1:]]) == [*map(tuple, states)]
    except OSError:
        return False


def may_have_external_data(path: Path) -> bool:
    """False: the model has none. True: it has, most probably; to know takes the library onnx."""
    return _LOCATION in read_regular(path, MOST_ONNX_BYTES)
