"""The experiment entry that runs are recorded into: its name, and what keeps CK from writing it.

CK would notice after the run, which would be lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ck_mlperf.common import locks
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import read_json, read_regular, write_file

NAME = r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,199}"
"""The names of experiments. CK itself takes `..`, and names that are too long for its files."""
NAME_RANGE = "letters, digits and _ . @ -, at most 200, and not . @ - at the front"
OUR_LOCK = "held with .record.lock"
"""A line of CK's own lock that says who wrote it: a process that holds `hold_lock`."""
MODULE = ("experiment", "bc0409fb61f0aa82")
"""CK's alias of the module of experiments, which is also their folder's name, and its UID."""

_UID = r"[0-9a-f]{16}"
_META = "meta.json"
_CK_LOCK = "ck_lock.txt"
# What CK writes into .cm before an entry has a point, and the temporary files of these.
_CKS_OWN = re.compile(r"\.?(meta\.json|info\.json|desc\.json|updates\.json|ck_lock\.txt)(\.\w+)?")


@contextlib.contextmanager
def hold_lock(experiments: Path) -> Iterator[None]:
    """Hold the lock on a repository's folder of experiments: one process records at a time.

    The folder is made if it is missing. Containers share it, but not the repository around it.
    """

    def announce_wait(holder: str) -> None:
        _say(f"waiting for process {holder}, which records into an experiment in {experiments}")

    experiments.mkdir(exist_ok=True)
    with locks.hold_lock(experiments / ".record.lock", announce_wait):
        _make_known(experiments)
        yield


def repair_entry(entry: Path) -> None:
    """Remove an entry whose making was killed, so that CK can make it; nothing else.

    That is an alias of CK's without a folder, or with a folder that has no description yet and
    nothing but CK's own files. The caller holds the lock. Raises OSError.
    """
    aliases = entry.parent / ".cm"
    alias = aliases / f"alias-a-{entry.name}"
    uid = _read_small(alias)
    by_ck = uid == "" or re.fullmatch(_UID, uid or entry.name)
    if not by_ck or not (os.path.lexists(entry) or uid is not None) or not _is_empty(entry):
        return
    _say(f"removing the empty experiment {entry.name}: the process that made it was killed")
    if entry.exists():
        with contextlib.suppress(FileNotFoundError):
            for path in (entry / ".cm").iterdir():
                path.unlink()
            (entry / ".cm").rmdir()
        entry.rmdir()
    other = aliases / f"alias-u-{uid}"
    if _read_small(other) in (entry.name, ""):
        other.unlink()
    alias.unlink(missing_ok=True)  # the last: without it nothing says that the rest is CK's


def wait_for_ck_lock(entry: Path) -> None:
    """Wait until no process holds CK's lock on an entry. The caller holds ours.

    CK waits for the lock of a dead process until it expires, two minutes later, and cannot read
    the empty one of a process that was killed as it wrote it.
    """
    lock = entry / ".cm" / _CK_LOCK
    is_said = False
    while True:
        try:
            lines = read_regular(lock).decode("utf-8", "replace").splitlines()
            age_s = abs(time.time() - lock.stat().st_mtime)
        except FileNotFoundError:
            return
        try:
            expires_s = 0.0 if OUR_LOCK in lines else float(lines[1])
        except (IndexError, ValueError):  # its process was killed before it had written it
            expires_s = 1.0
        left_s = expires_s - age_s
        if left_s <= 0:
            lock.unlink(missing_ok=True)
            return
        if not is_said and left_s > 1:
            is_said = True
            _say(
                f"waiting up to {left_s:.0f} s for another program that records into experiment "
                f"{entry.name}. If there is none, remove {lock}"
            )
        time.sleep(min(0.2, left_s))


def check_writable(entry: Path) -> None:
    """Raise UserError, or OSError, where an entry cannot be written, or else cannot be made."""
    experiments = entry.parent
    folders = [entry, entry / ".cm", entry / "logs"]
    if not os.path.lexists(entry):
        if os.path.lexists(experiments / ".cm" / f"alias-a-{entry.name}"):
            raise UserError(f"{experiments}/.cm/alias-a-{entry.name} is in the way: move it")
        folders = [experiments, experiments / ".cm"]
    for folder in folders:
        if os.path.lexists(folder):
            try:
                tempfile.TemporaryFile(dir=folder).close()
            except OSError as error:
                raise UserError(f"{folder} cannot be written: {error.strerror}") from error


def _make_known(experiments: Path) -> None:
    """Write CK's aliases of the folder of experiments. It adds nothing to one that has none."""
    aliases = experiments.parent / ".cm"
    aliases.mkdir(exist_ok=True)
    for alias, content in ((f"a-{MODULE[0]}", MODULE[1]), (f"u-{MODULE[1]}", MODULE[0])):
        path = aliases / f"alias-{alias}"
        if _read_small(path) != content:
            write_file(path, f"{content}\n")


def _is_empty(entry: Path) -> bool:
    """Whether an entry is nothing, or a folder with nothing but CK's own files, undescribed."""
    if not os.path.lexists(entry):
        return True
    cm = entry / ".cm"
    if entry.is_symlink() or not entry.is_dir() or not {*os.listdir(entry)} <= {".cm"}:
        return False
    if not os.path.lexists(cm):
        return True
    if cm.is_symlink() or not cm.is_dir():
        return False
    for file in os.scandir(cm):
        if not _CKS_OWN.fullmatch(file.name) or not file.is_file(follow_symlinks=False):
            return False
    try:
        read_json(cm / _META)
    except (FileNotFoundError, ValueError):
        return True
    return False


def _read_small(path: Path) -> str | None:
    """The one line of an alias file; None where it is no such file."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 256:
        return None
    return read_regular(path).decode("utf-8", "replace").strip()


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
