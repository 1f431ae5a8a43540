"""The files of an experiment's runs: LoadGen's logs and user.conf, compressed, by their sha256.

A record names each file with its sha256; the file is `<experiment entry>/logs/<sha256>.gz`. CK's
hooks import this module: it needs the standard library alone.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import MOST_LOG_BYTES, open_regular, read_regular, write_file

if TYPE_CHECKING:
    from ck_mlperf.results.record import File

FOLDER = "logs"
_SUFFIX = ".gz"
_DAMAGE = (EOFError, ValueError, zlib.error, gzip.BadGzipFile)


def keep_file(entry: Path, path: Path, sha256: str) -> None:
    """Keep the file `path` in the folder of an experiment entry.

    sha256: of its content, in hex. Raises UserError where the content has another one; OSError.
    """
    keep_content(entry, read_regular(path, MOST_LOG_BYTES), sha256, str(path))


def keep_content(entry: Path, content: bytes, sha256: str, source: str) -> None:
    """As `keep_file`, of the content of a file. source: where it is from, for the error."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UserError(f"{source}: its sha256 is {found}, and the record says {sha256}")
    path = locate(entry, sha256)
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        # Without a time in it, the same content is always the same file.
        write_file(path, gzip.compress(content, mtime=0))


def read_kept(entry: Path, file: File) -> bytes:
    """The content of a file that a record names: one of `record.logs`, or its user.conf.

    entry: the folder of the experiment entry that the record is in. Raises UserError where the
    file is missing, damaged or another one.
    """
    path = locate(entry, file.sha256)
    try:
        with open_regular(path) as packed:
            content = _unpack(packed)
    except FileNotFoundError:
        raise UserError(
            f"{path}: missing: the {file.file} of a run. Runs recorded by older versions kept no "
            "logs; repeat the run, or copy the file from where the experiment was made"
        ) from None
    except _DAMAGE as error:
        raise UserError(f"{path}: damaged ({error}). Repeat the run") from error
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise UserError(
            f"{path}: damaged: it is a {file.file} whose sha256 is {found}. Repeat the run"
        )
    return content


def pack_kept(entry: Path) -> dict[str, str]:
    """The files that are kept in an entry, by sha256, as text for `unpack_kept` elsewhere."""
    return {
        path.name.removesuffix(_SUFFIX): base64.b64encode(
            read_regular(path, MOST_LOG_BYTES)
        ).decode("ascii")
        for path in sorted((entry / FOLDER).glob(f"*{_SUFFIX}"))
    }


def unpack_kept(entry: Path, packed: Mapping[str, str], source: str) -> None:
    """Keep in an entry what another machine has packed. source: that machine, for the error.

    Raises UserError where a file is damaged or another one than its sha256 says.
    """
    for sha256, text in packed.items():
        where = f"a log from {source}"
        try:
            content = _unpack(BytesIO(base64.b64decode(text, validate=True)))
        except _DAMAGE as error:
            raise UserError(f"{where}: damaged ({error}). Repeat the run") from error
        keep_content(entry, content, sha256, where)


def _unpack(packed: BinaryIO) -> bytes:
    """The content of a gzip file. Raises ValueError where it is longer than a log may be."""
    with gzip.open(packed) as unpacked:
        content: bytes = unpacked.read(MOST_LOG_BYTES + 1)
    if len(content) > MOST_LOG_BYTES:
        raise ValueError(f"more than {MOST_LOG_BYTES:,} bytes")
    return content


def locate(entry: Path, sha256: str) -> Path:
    """Where a file of that sha256 is kept, in the folder of an experiment entry."""
    return entry / FOLDER / f"{sha256}{_SUFFIX}"
