"""Unpack an untrusted archive: nothing but files and folders, all inside the target.

The code below writes the members itself. The extractors of tarfile and zipfile, which apply the
archive's modes, owners and links, are not used.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from ck_mlperf.common.errors import UserError, describe_os_error
from ck_mlperf.common.files import hash_file, is_plain_name, replace_folder, write_file

# In a folder that was unpacked here: the archive's sha256.
MARKER_FILE = ".unpacked"

# Photographs hardly compress, text by a factor of 10; what expands more than this is meant to fill
# the disk.
MAX_EXPANSION = 100
_SMALL_BYTES = 10 << 20

_DAMAGES = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,  # a zip of a packing method that this Python lacks
)


class _Member(NamedTuple):
    name: str
    is_file: bool
    size_bytes: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar (also .gz, .bz2, .xz) or zip archive to `folder`, atomically.

    A folder that was unpacked from this archive stays; one from another archive is replaced; any
    other that is not empty is refused. Raises UserError on absolute names, `..`, links, devices,
    names that occur twice, an absurd expansion, and an incomplete archive, and leaves nothing.
    """
    sha256 = hash_file(archive)
    marker = folder / MARKER_FILE
    if marker.is_file() and marker.read_text(encoding="utf-8", errors="replace") == sha256:
        return
    if not marker.is_file() and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not empty. Remove it, or unpack elsewhere")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replace_folder(folder) as made:
            _write_members(archive, made)
            write_file(made / MARKER_FILE, sha256)
            made.chmod(0o755)
    except _DAMAGES as error:
        raise UserError(f"{archive}: damaged or cut off ({error}). Get it again") from None
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{archive}: a name occurs twice ({error.filename}): refused") from None
    except OSError as error:
        raise UserError(f"cannot unpack into {folder}: {describe_os_error(error)}") from None


def _write_members(archive: Path, folder: Path) -> None:
    limit_bytes = archive.stat().st_size * MAX_EXPANSION + _SMALL_BYTES
    free_bytes = shutil.disk_usage(folder).free
    total_bytes = 0
    seen: set[str] = set()
    with _open_archive(archive) as members:
        for member in members:
            name = member.name.removeprefix("./").rstrip("/")
            if name in ("", ".") and not member.is_file:
                continue
            where = f"{archive}: member {member.name[:80]!r}"
            if not all(is_plain_name(part) for part in name.split("/")):
                raise UserError(f"{where} points outside the folder: refused")
            if name == MARKER_FILE or (name in seen and member.is_file):
                raise UserError(f"{where} occurs twice: refused")
            seen.add(name)
            total_bytes += member.size_bytes
            if total_bytes > limit_bytes:
                raise UserError(
                    f"{archive}: grows to more than {MAX_EXPANSION} times its size: refused"
                )
            if total_bytes > free_bytes:
                raise UserError(
                    f"{folder.parent}: {free_bytes} bytes are free, {archive} needs more. Make room"
                )
            target = folder / name
            if not member.is_file:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            source = member.open()
            if source is None:
                raise UserError(f"{where} has no content: refused")
            with source, target.open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
    if not seen:
        raise UserError(f"{archive}: nothing in it")


@contextlib.contextmanager
def _open_archive(archive: Path) -> Iterator[Iterator[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed_zip:
            yield _list_zip(archive, packed_zip)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as packed_tar:
            yield _list_tar(archive, packed_tar)
    else:
        raise UserError(f"{archive}: no tar or zip archive, or one that is cut off. Get it again")


def _list_tar(archive: Path, packed: tarfile.TarFile) -> Iterator[_Member]:
    for info in packed:
        if not (info.isdir() or info.isreg()) or info.issparse():
            raise UserError(
                f"{archive}: member {info.name[:80]!r} is a link, a device or the like: refused"
            )
        yield _Member(
            info.name, info.isreg(), info.size, functools.partial(packed.extractfile, info)
        )


def _list_zip(archive: Path, packed: zipfile.ZipFile) -> Iterator[_Member]:
    for info in packed.infolist():
        kind = info.external_attr >> 16 & 0o170000
        if kind not in (0, 0o100000, 0o040000) or info.flag_bits & 1:
            raise UserError(
                f"{archive}: member {info.filename[:80]!r} is a link, a device, encrypted or the "
                "like: refused"
            )
        yield _Member(
            info.filename,
            not info.is_dir(),
            info.file_size,
            functools.partial(packed.open, info),
        )
