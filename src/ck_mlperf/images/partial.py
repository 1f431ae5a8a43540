"""The unfinished preprocessed set that a run leaves when it is stopped, and the next run resumes.

Its rows are in OUTPUT/.partial-KEY, whose file `progress` has a line for each finished row. A row
is used again only if its digest there still fits its pixels and its source file is unchanged, so
nothing needs to be flushed to the disk before the end.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import name_in_errors, read_text, sync_folder
from ck_mlperf.common.locks import hold_lock
from ck_mlperf.images.dataset import MAP_FILE
from ck_mlperf.images.preprocessed import IMAGES_FILE, ROWS_FILE, RowDigests, hash_row, open_array
from ck_mlperf.images.source import MANIFEST_FILE

PROGRESS_FILE = "progress"
# The workers of a killed run hold the lock until they notice, which takes milliseconds.
LOCK_WAIT_S = 3.0
# Room for labels, manifest and progress, in addition to the array.
SPARE_BYTES = 16 << 20


@contextlib.contextmanager
def lock_output(output: Path) -> Iterator[None]:
    """Keep other processes from writing into `output`. Forked workers inherit the lock."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(hold_lock(output / ".lock", timeout_s=LOCK_WAIT_S))
        except TimeoutError:
            raise UserError(
                f"{output}: another process is writing to it. Wait until that is done"
            ) from None
        yield


def open_partial(output: Path, plan: Mapping[str, Any]) -> Path:
    """The folder of the unfinished set of this `plan`, with its array allocated.

    plan: the part of the manifest that is known beforehand. Sets of other plans are removed.
    Raises UserError where the disk has no room for the array.
    """
    key = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]
    partial = output / f".partial-{key}"
    for other in output.glob(".partial-*"):
        if other != partial:
            shutil.rmtree(other)
    partial.mkdir(exist_ok=True)
    side = plan["recipe"]["side"]
    try:
        _allocate(partial / IMAGES_FILE, (plan["count"], side, side, 3))
    except OSError as error:
        shutil.rmtree(partial)
        raise UserError(
            f"{output}: no room for {plan['count']} images: {error.strerror}. "
            "Make room, or use fewer images"
        ) from None
    return partial


def read_progress(partial: Path, states: Sequence[str]) -> dict[int, RowDigests]:
    """The rows that an earlier run finished and that are still right.

    states: `Source.states`.
    """
    images = open_array(partial / IMAGES_FILE)
    try:
        lines = read_text(partial / PROGRESS_FILE).splitlines()
    except FileNotFoundError:
        return {}
    rows = {f"{row} {state}": row for row, state in enumerate(states)}
    found: dict[int, RowDigests] = {}
    for line in lines:
        which, *digests = line.rsplit(" ", 2)
        row = rows.get(which)
        if row is None or len(digests[-1]) != 64:
            continue  # the file has changed; or the last line of a killed run, which may be cut off
        if digests[0] == hash_row(images[row]):
            found[row] = RowDigests(*digests)
    return found


def write_progress(
    progress: IO[str], states: Sequence[str], made: Mapping[int, RowDigests]
) -> None:
    """Note the rows that are finished, in the file PROGRESS_FILE."""
    for row, digests in made.items():
        progress.write(f"{row} {states[row]} {digests.pixels} {digests.content}\n")
    progress.flush()


def publish(partial: Path, output: Path) -> None:
    """Move the finished files to `output`. The manifest, which makes it a set, moves last."""
    array = partial / IMAGES_FILE
    with name_in_errors(array), array.open("r+b") as file:
        os.fsync(file.fileno())
    (output / MANIFEST_FILE).unlink(missing_ok=True)
    sync_folder(output)
    for name in (IMAGES_FILE, ROWS_FILE, MAP_FILE):
        (partial / name).replace(output / name)
    sync_folder(output)
    (partial / MANIFEST_FILE).replace(output / MANIFEST_FILE)
    sync_folder(output)
    shutil.rmtree(partial)


def _allocate(path: Path, shape: tuple[int, ...]) -> None:
    """Make sure that `path` is an array of this shape, with all its space on the disk."""
    try:
        array = open_array(path)
        if array.shape != shape or array.dtype != np.uint8:
            raise ValueError("an array of another plan")
    except (FileNotFoundError, ValueError):
        wanted_bytes = int(np.prod(shape, dtype=np.int64)) + SPARE_BYTES
        free_bytes = shutil.disk_usage(path.parent).free
        if free_bytes < wanted_bytes:
            raise OSError(
                errno.ENOSPC, f"they take {_mib(wanted_bytes)}, {_mib(free_bytes)} are free"
            ) from None
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    # Taken beforehand, so that a full disk is noticed now and not after hours.
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.0f} MiB"
