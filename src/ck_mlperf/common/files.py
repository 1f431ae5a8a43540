"""Write files atomically, so that a power cut leaves none half-written; hash and name them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

_BLOCK_BYTES = 1 << 20


def write_file(path: Path, data: str | bytes) -> None:
    """Write `data` to `path` atomically: `path` has either its old content or all of the new."""
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # less the umask
    try:
        with name_in_errors(path), os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill; it takes the place of `folder` once the block has ended.

    Where the block raises, `folder` stays as it is. A kill or a power cut leaves the old one, none,
    or all of the new one.
    """
    # Beside it, since only a rename within one file system is atomic.
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}.", ignore_cleanup_errors=True
    ) as temporary:
        made = Path(temporary, "made")
        made.mkdir()
        yield made
        os.sync()  # all at once: to flush 50,000 images one by one takes minutes
        if folder.exists():  # moved as a whole: half removed, it would look like a smaller one
            folder.rename(Path(temporary, "replaced"))
        made.rename(folder)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` (renames, removals) outlast a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with name_in_errors(folder):
            os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """An OSError in the block names `path`, where the system names no file: of a write, a flush."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


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
