"""Unpack an archive that nobody vouches for: plain files and folders alone, all inside the target.

Members are written by the code below. The extractors of tarfile and zipfile, which obey modes,
owners and links of the archive, are not used.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from ck_mlperf.common.errors import UserError, describe_os_error
from ck_mlperf.common.files import hash_file, is_plain_name, sync_folder, write_file

# A folder made here holds the archive's sha256 in this file.
MARKER_FILE = ".unpacked"

# Photographs do not shrink, text does by 10 or so; beyond this an archive is made to fill the disk.
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
    """Unpack a tar (also .gz, .bz2, .xz) or zip archive so that `folder` is all of it, or absent.

    A folder that was unpacked here before stays, or is replaced if the archive is another; any
    other that is not empty is refused. Raises UserError on absolute names, `..`, links, devices,
    names that occur twice, an absurd expansion, and on what is no whole archive; nothing is left.
    """
    sha256 = hash_file(archive)
    marker = folder / MARKER_FILE
    if marker.is_file() and marker.read_text(encoding="utf-8", errors="replace") == sha256:
        return
    is_ours = marker.is_file()
    if not is_ours and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not empty. Remove it, or unpack elsewhere")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    retired = temporary.with_name(f"{temporary.name}.old")
    try:
        _write_members(archive, temporary)
        write_file(temporary / MARKER_FILE, sha256)
        temporary.chmod(0o755)
        if is_ours:  # moved away whole: removed by half, it would still bear its marker
            folder.replace(retired)
        temporary.replace(folder)
    except _DAMAGES as error:
        raise UserError(f"{archive}: damaged or cut off ({error}). Get it again") from None
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{archive}: a name occurs twice ({error.filename}): refused") from None
    except OSError as error:
        raise UserError(f"cannot unpack into {folder}: {describe_os_error(error)}") from None
    finally:
        for leftover in (temporary, retired):
            shutil.rmtree(leftover, ignore_errors=True)
    sync_folder(folder.parent)


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
