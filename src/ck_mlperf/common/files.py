"""Write files atomically, so that a power cut leaves none half-written; read, hash and name them.

What somebody else has put somewhere is read by `open_regular` and what builds on it: of a FIFO,
/dev/zero or a file without an end, a read never comes back.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ck_mlperf.common.errors import UserError

MOST_BYTES = 64 << 20
"""Of a file that is read as a whole, unless its reader says otherwise."""
MOST_LOG_BYTES = 2 << 30
"""Of one of LoadGen's logs."""
MOST_ONNX_BYTES = (2 << 30) - 1
"""Of an ONNX file: protobuf's limit."""
_MOST_YAML_BYTES, _DEEPEST_YAML = 1 << 20, 32
_BLOCK_BYTES = 1 << 20


class OddFileError(UserError, OSError):
    """Not a regular file, or one that is too large: an OSError for who handles those."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(errno.EFBIG, what, str(path))

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


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


def open_regular(path: Path) -> BinaryIO:
    """A file to read. Raises OddFileError for what is none, such as a FIFO or a device; OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # to open a FIFO would wait for its writer
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OddFileError(path, "not a regular file, but a device or the like")
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def read_regular(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of a regular file. Raises OddFileError if it is larger; OSError."""
    with open_regular(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OddFileError(path, f"larger than {most_bytes:,} bytes, the most of such a file")
    return content


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """The same as text in UTF-8. Raises UnicodeDecodeError, a ValueError."""
    return read_regular(path, most_bytes).decode("utf-8")


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """The JSON in a regular file. Raises ValueError where it is none, or nested too deeply."""
    return parse_json(read_regular(path, most_bytes))


def parse_json(content: str | bytes) -> Any:
    """The JSON in `content`. Raises ValueError where it is none, or nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_yaml(path: Path) -> Any:
    """The YAML in a regular file of at most 1 MiB. Raises ValueError where it is none, is nested
    too deeply, or has aliases, of which a few lines make gigabytes."""
    import yaml

    text = read_text(path, _MOST_YAML_BYTES)
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has an alias (*name): write out what that stands for")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST_YAML:
                raise ValueError("nested too deeply")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


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
    with open_regular(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def read_state(path: Path) -> tuple[int, int, int, int]:
    """What differs after somebody wrote to a file or replaced it: size, times in ns, inode."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def is_plain_name(name: str) -> bool:
    """Whether `name` can only be a file directly in the folder that it is looked up in."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")
