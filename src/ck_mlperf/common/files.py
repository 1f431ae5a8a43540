"""Write files atomically, so that a power cut leaves none half-written; hash and name them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

_BLOCK_BYTES = 1 << 20


def write_file(path: Path, data: str | bytes) -> None:
    """Write `data` to `path` atomically: `path` has either its old content or all of the new."""
    content = data.encode() if isinstance(data, str) else data
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` (renames, removals) outlast a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file, in hex."""
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def is_plain_name(name: str) -> bool:
    """Whether `name` can only be a file directly in the folder that it is looked up in."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")
