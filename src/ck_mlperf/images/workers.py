"""Decode images in parallel, one process for each core, into rows of an array on the disk."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import name_in_errors
from ck_mlperf.images.decode import decode_image
from ck_mlperf.images.preprocessed import RowDigests, hash_row
from ck_mlperf.images.recipe import ImageRecipe

# Most rows per task. A task costs the parent 0.3 ms, which is then 0.4% of the time of its rows.
_MAX_ROWS = 32


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def decode_rows(
    source: Path,
    images_path: Path,
    names: Sequence[str],
    recipe: ImageRecipe,
    todo: Sequence[int],
    workers: int | None,
) -> Iterator[dict[int, RowDigests]]:
    """Write the rows `todo` of the array at `images_path`; yields {row: digests} as they get done.

    Row n is the image source/names[n]. workers: processes, by default one for each core.
    Raises UserError on a damaged image, and where a process is killed.
    """
    if not todo:
        return
    processes = workers or count_cores()
    tasks = _split(todo, processes)
    # Forked, since a fresh interpreter takes as long to start as some hundred images. The children
    # use none of the parent's locks and threads, which is what Python 3.12 warns of.
    pool = ProcessPoolExecutor(
        min(processes, len(tasks)),
        mp_context=get_context("fork"),
        initializer=_start_worker,
        initargs=(source, images_path, names, recipe),
    )
    with pool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                futures = [pool.submit(_make_rows, rows) for rows in tasks]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise UserError(
                f"a process that preprocesses {source} was killed, probably for lack of memory. "
                "Run the same command again: it resumes where it stopped. If it happens again, use "
                "fewer workers"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _split(todo: Sequence[int], processes: int) -> list[Sequence[int]]:
    """Tasks that get shorter towards the end, so that all processes finish at the same time."""
    tasks = []
    at = 0
    while at < len(todo):
        count = (len(todo) - at) // (2 * processes)
        tasks.append(todo[at : at + min(max(count, 2), _MAX_ROWS)])
        at += len(tasks[-1])
    return tasks


class _Worker:
    """What a worker process keeps between tasks."""

    source: Path
    names: Sequence[str]
    recipe: ImageRecipe
    images_path: Path
    pixels: npt.NDArray[np.uint8]


def _start_worker(
    source: Path, images_path: Path, names: Sequence[str], recipe: ImageRecipe
) -> None:
    import cv2

    cv2.setNumThreads(0)  # there is a process for each core already
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _Worker.source, _Worker.names, _Worker.recipe = source, names, recipe
    _Worker.images_path = images_path
    _Worker.pixels = np.empty((recipe.side, recipe.side, 3), np.uint8)


def _die_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make_rows(rows: Sequence[int]) -> dict[int, RowDigests]:
    made = {}
    pixels = _Worker.pixels
    first_byte = np.lib.format.open_memmap(_Worker.images_path, mode="r").offset
    # Written, not mapped: no page faults, and a failing disk gives an error, not a signal. Opened
    # for each task: an error in the initializer would be a traceback and a "killed" worker.
    path = _Worker.images_path
    with name_in_errors(path), path.open("r+b", buffering=0) as file:
        for row in rows:
            content = decode_image(_Worker.source / _Worker.names[row], _Worker.recipe, pixels)
            position = first_byte + row * pixels.nbytes
            if os.pwrite(file.fileno(), pixels.data, position) != pixels.nbytes:
                raise UserError(f"{path}: row {row} was written in part: is the disk full?")
            made[row] = RowDigests(hash_row(pixels), content)
    return made
