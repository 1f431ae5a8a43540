"""Make one array of a data set: every image decoded, resized and cropped as a recipe says.

The output folder gets images.npy (uint8 [N, side, side, 3]), val_map.txt (`name label`, one line a
row) and manifest.json. The manifest comes last: a folder without it is not a preprocessed set.

A run that was killed goes on where it stopped: its rows lie in OUTPUT/.partial-KEY, with a line in
`progress` for each finished row. A row is kept only if its digest there still fits its pixels and
its source file is unchanged, so nothing need be flushed to the disk before the end.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import sync_folder, write_file
from ck_mlperf.common.locks import hold_lock
from ck_mlperf.images.dataset import (
    DATASET_CLASSES,
    MAP_FILE,
    format_labels,
    hash_image_list,
    list_unlabelled,
    parse_labels,
    read_image_list,
)
from ck_mlperf.images.decode import decode_image, library_versions
from ck_mlperf.images.recipe import ASPECTS, CHANNEL_ORDERS, INTERPOLATIONS, ImageRecipe

FORMAT = 1
IMAGES_FILE = "images.npy"
MANIFEST_FILE = "manifest.json"

# Most rows per task. What a task costs the parent, 0.3 ms, is then 0.4% of the time of its rows.
_MAX_ROWS = 32
# Workers of a killed run hold the lock until they notice, within milliseconds.
_LOCK_WAIT_S = 3.0
_SYNC_PERIOD_S = 0.25
# Room for labels, manifest and progress, on top of the array, in bytes.
_SPARE_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True)
class PreprocessedSet:
    """A preprocessed data set as it lies on the disk.

    images: uint8 [n, side, side, 3], memory-mapped, read-only.
    labels: int32 [n], 0 to classes-1.
    names: the n source files' names.
    manifest: format, dataset, count, recipe, images_sha256 (see `hash_rows`), labels_sha256 (of
    val_map.txt), source_list_sha256 (of the whole source list), source_count, source_files_sha256
    (names, sizes and times of the source files), opencv and, where it was used, pillow (versions);
    labelled: false where the labels mean nothing.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    names: list[str]
    manifest: dict[str, Any]

    @property
    def recipe(self) -> ImageRecipe:
        return ImageRecipe.from_dict(self.manifest["recipe"])


def load_preprocessed(folder: Path, verify: bool = False) -> PreprocessedSet:
    """Open a preprocessed data set. `verify` also hashes every pixel.

    Raises UserError where the set is absent or unfinished, or where its files do not fit together.
    """
    manifest = _read_manifest(folder / MANIFEST_FILE)
    recipe = ImageRecipe.from_dict(manifest["recipe"])
    shape = (manifest["count"], recipe.side, recipe.side, 3)
    advice = f"Remove {folder} and preprocess again"
    path = folder / IMAGES_FILE
    try:
        images = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, FileNotFoundError) as error:
        raise UserError(f"{path}: missing or damaged ({error}). {advice}") from None
    if images.shape != shape or images.dtype != np.uint8 or not images.flags.c_contiguous:
        raise UserError(
            f"{path}: holds {images.dtype} {images.shape}, "
            f"{MANIFEST_FILE} says uint8 {shape}. {advice}"
        )
    if path.stat().st_size != images.offset + images.nbytes:
        raise UserError(f"{path}: {path.stat().st_size} bytes, too long for {shape}. {advice}")
    listed = parse_labels(folder / MAP_FILE, DATASET_CLASSES[manifest["dataset"]])
    if len(listed) != len(images) or hash_image_list(listed) != manifest["labels_sha256"]:
        raise UserError(f"{folder / MAP_FILE}: not the labels of {path}. {advice}")
    if verify and hash_rows(map(hash_row, images)) != manifest["images_sha256"]:
        raise UserError(f"{path}: its pixels have changed since it was made. {advice}")
    names, labels = zip(*listed, strict=True)
    return PreprocessedSet(images, np.array(labels, np.int32), list(names), manifest)


def hash_row(row: npt.NDArray[np.uint8]) -> str:
    """sha256 of one image's pixels, in hex."""
    return hashlib.sha256(row.data).hexdigest()


def hash_rows(digests: Iterator[str]) -> str:
    """images_sha256: sha256 of the rows' sha256 digests (bytes), in order, in hex.

    Not of the whole array: the workers hash while they decode, and no pass is needed at the end.
    """
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def preprocess(
    source: Path,
    output: Path,
    recipe: ImageRecipe,
    dataset: str = "imagenet",
    labels_file: Path | None = None,
    first: int | None = None,
    workers: int | None = None,
    show_progress: bool = False,
    labelled: bool = True,
) -> PreprocessedSet:
    """Preprocess the images of `source`, or the `first` so many, into the folder `output`.

    labelled: False takes every image there as one without a label, for calibration.
    workers: processes, by default one for each core that this process may use; the result does not
    depend on it. What is there already and still right is not made again.
    Raises UserError on images or labels that are missing or damaged, on a full disk, and where
    another process writes into `output`.
    """
    if source.resolve() == output.resolve():
        raise UserError(f"{output}: the output cannot be the folder of the images")
    if labelled:
        listed = read_image_list(source, labels_file, DATASET_CLASSES[dataset])
    else:
        listed = list_unlabelled(source)
    kept = listed[:first]
    if first is not None and not 1 <= first <= len(listed):
        raise UserError(f"first {first} images wanted: {source} has {len(listed)}")
    states = [_describe_file(source / name) for name, _ in kept]
    plan = {
        "format": FORMAT,
        "dataset": dataset,
        "count": len(kept),
        "recipe": recipe.to_dict(),
        "labels_sha256": hash_image_list(kept),
        "source_list_sha256": hash_image_list(listed),
        "source_count": len(listed),
        **({} if labelled else {"labelled": False}),
        **library_versions(recipe),
    }
    manifest = {
        **plan,
        "source_files_sha256": hashlib.sha256(
            "".join(
                f"{name} {state}\n" for (name, _), state in zip(kept, states, strict=True)
            ).encode()
        ).hexdigest(),
    }
    output.mkdir(parents=True, exist_ok=True)
    with _lock(output):
        with contextlib.suppress(UserError):  # absent, unfinished or damaged: it is made again
            done = load_preprocessed(output)
            if manifest.items() <= done.manifest.items():
                return done
        partial = _open_partial(output, plan)
        names = [name for name, _ in kept]
        digests = _fill_array(source, partial, names, states, recipe, workers, show_progress)
        manifest["images_sha256"] = hash_rows(iter(digests))
        write_file(partial / MAP_FILE, format_labels(kept))
        write_file(partial / MANIFEST_FILE, json.dumps(manifest, indent=2) + "\n")
        _publish(partial, output)
    return load_preprocessed(output)


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: not there, so {path.parent} is no finished preprocessed data set. "
            "Preprocess the images first"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}). Preprocess the images again") from None
    texts = ("images_sha256", "labels_sha256", "source_list_sha256", "opencv")
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != FORMAT
        or manifest.get("dataset") not in DATASET_CLASSES
        or type(manifest.get("count")) is not int
        or not isinstance(manifest.get("recipe"), dict)
        or not all(isinstance(manifest.get(key), str) for key in texts)
    ):
        raise UserError(f"{path}: not a manifest of format {FORMAT}. Preprocess the images again")
    return manifest


def _describe_file(path: Path) -> str:
    """Size in bytes and time of change in ns: whether a source file is still the same."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


@contextlib.contextmanager
def _lock(output: Path) -> Iterator[None]:
    """Keep other processes from writing into `output`. Workers inherit the lock with the file."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(hold_lock(output / ".lock", timeout_s=_LOCK_WAIT_S))
        except TimeoutError:
            raise UserError(
                f"{output}: another process preprocesses into it. Wait until it is done"
            ) from None
        yield


def _open_partial(output: Path, plan: dict[str, Any]) -> Path:
    """The folder in which the set grows; one of another plan is removed. The array is allocated."""
    key = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]
    partial = output / f".partial-{key}"
    for other in output.glob(".partial-*"):
        if other != partial:
            shutil.rmtree(other)
    partial.mkdir(exist_ok=True)
    try:
        _allocate(partial / IMAGES_FILE, plan["count"], plan["recipe"]["side"])
    except OSError as error:
        shutil.rmtree(partial)
        raise UserError(
            f"{output}: no room for {plan['count']} images: {error.strerror}. "
            "Make room, or take fewer images"
        ) from None
    return partial


def _allocate(path: Path, count: int, side: int) -> None:
    """Make sure that an array for so many images is at `path`, with all its space on the disk."""
    shape = (count, side, side, 3)
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        if array.shape != shape or array.dtype != np.uint8:
            raise ValueError("an array of another plan")
    except (FileNotFoundError, ValueError):
        wanted_bytes = int(np.prod(shape, dtype=np.int64)) + _SPARE_BYTES
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


def _fill_array(
    source: Path,
    partial: Path,
    names: Sequence[str],
    states: Sequence[str],
    recipe: ImageRecipe,
    workers: int | None,
    show_progress: bool,
) -> list[str]:
    """Make every row that is not there yet. Returns the digests of all rows."""
    digests = _read_progress(partial, states)
    todo = [row for row in range(len(names)) if row not in digests]
    with (
        (partial / "progress").open("a", encoding="ascii") as progress,
        (partial / IMAGES_FILE).open("r+b") as images,
    ):
        sync_at_s = time.monotonic() + _SYNC_PERIOD_S
        steps = _run_workers(source, partial / IMAGES_FILE, names, recipe, todo, workers)
        for made in _show(steps, len(names), len(digests)) if show_progress else steps:
            digests.update(made)
            progress.writelines(f"{row} {states[row]} {digest}\n" for row, digest in made.items())
            progress.flush()
            if time.monotonic() > sync_at_s:
                # While the workers go on; all at once at the end it could take as long as they did.
                os.fdatasync(images.fileno())
                sync_at_s = time.monotonic() + _SYNC_PERIOD_S
    return [digests[row] for row in range(len(names))]


def _read_progress(partial: Path, states: Sequence[str]) -> dict[int, str]:
    """The rows that an earlier run finished and that are still right: {row: digest}."""
    images = np.lib.format.open_memmap(partial / IMAGES_FILE, mode="r")
    try:
        lines = (partial / "progress").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return {}
    found: dict[int, str] = {}
    for line in lines:
        row_text, _, rest = line.partition(" ")
        state, _, digest = rest.rpartition(" ")
        if not row_text.isdigit() or int(row_text) >= len(states):
            continue  # the last line of a killed run may be cut off
        row = int(row_text)
        if state == states[row] and digest == hash_row(images[row]):
            found[row] = digest
    return found


def _run_workers(
    source: Path,
    images_path: Path,
    names: Sequence[str],
    recipe: ImageRecipe,
    todo: Sequence[int],
    workers: int | None,
) -> Iterator[dict[int, str]]:
    """Make the rows `todo` in parallel; yields {row: digest} as they get done."""
    if not todo:
        return
    processes = workers or count_cores()
    tasks = _split(todo, processes)
    # Forked, since a fresh interpreter takes as long to start as some hundred images. The children
    # use neither locks nor threads of the parent's, which is what the warning of 3.12 is about.
    pool = ProcessPoolExecutor(
        min(processes, len(tasks)),
        mp_context=get_context("fork"),
        initializer=_start_worker,
        initargs=(source, images_path, names, recipe),
    )
    with pool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            futures = [pool.submit(_make_rows, rows) for rows in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise UserError(
                f"a process that preprocesses {source} was killed, probably for lack of memory. "
                "Run the same again, it goes on where it stopped; with fewer workers if need be"
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


def _show(steps: Iterator[dict[int, str]], total: int, done: int) -> Iterator[dict[int, str]]:
    """Pass `steps` on and show how far they are: a bar on a terminal, else a line every tenth."""
    from tqdm import tqdm

    on_terminal = sys.stderr.isatty()
    with tqdm(total=total, initial=done, unit="image", disable=not on_terminal) as bar:
        for made in steps:
            yield made
            before, done = done, done + len(made)
            bar.update(len(made))
            if not on_terminal and before * 10 // total != done * 10 // total:
                print(f"preprocessed {done} of {total} images", file=sys.stderr)


def _publish(partial: Path, output: Path) -> None:
    """Move the finished files to `output`. The manifest, which makes it a set, moves last."""
    with (partial / IMAGES_FILE).open("r+b") as file:
        os.fsync(file.fileno())
    (output / MANIFEST_FILE).unlink(missing_ok=True)
    sync_folder(output)
    for name in (IMAGES_FILE, MAP_FILE):
        (partial / name).replace(output / name)
    sync_folder(output)
    (partial / MANIFEST_FILE).replace(output / MANIFEST_FILE)
    sync_folder(output)
    shutil.rmtree(partial)


class _Worker:
    """What a worker process keeps between tasks."""

    source: Path
    names: Sequence[str]
    recipe: ImageRecipe
    images_fd: int
    first_byte: int
    pixels: npt.NDArray[np.uint8]


def _start_worker(
    source: Path, images_path: Path, names: Sequence[str], recipe: ImageRecipe
) -> None:
    import cv2

    cv2.setNumThreads(0)  # one process per core: threads of its own would only get in the way
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _Worker.source, _Worker.names, _Worker.recipe = source, names, recipe
    # Written, not mapped: no page faults, and a disk that fails gives an error, not a signal.
    _Worker.images_fd = os.open(images_path, os.O_WRONLY)
    _Worker.first_byte = np.lib.format.open_memmap(images_path, mode="r").offset
    _Worker.pixels = np.empty((recipe.side, recipe.side, 3), np.uint8)


def _die_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make_rows(rows: Sequence[int]) -> dict[int, str]:
    made = {}
    pixels = _Worker.pixels
    for row in rows:
        decode_image(_Worker.source / _Worker.names[row], _Worker.recipe, pixels)
        position = _Worker.first_byte + row * pixels.nbytes
        if os.pwrite(_Worker.images_fd, pixels.data, position) != pixels.nbytes:
            raise UserError(f"row {row} of {IMAGES_FILE} was written in part only: disk full?")
        made[row] = hash_row(pixels)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ck_mlperf.images.preprocess",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = ImageRecipe()
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder of images")
    add("--labels", type=Path, help="lines `name label`; default: val_map.txt or val.txt there")
    add("--unlabelled", action="store_true", help="the images have no labels: for calibration only")
    add("--output", type=Path, required=True, help="folder to make")
    add("--dataset", choices=sorted(DATASET_CLASSES), default="imagenet")
    add("--side", type=int, default=default.side, help="pixels, default %(default)s")
    add("--crop", type=float, default=default.crop, help="share kept, default %(default)s")
    add("--interpolation", choices=INTERPOLATIONS, default=default.interpolation)
    add("--channels", choices=CHANNEL_ORDERS, default=default.channels)
    add("--aspect", choices=ASPECTS, default=default.aspect)
    add("--first", type=int, metavar="N", help="only the first N images of the list")
    add("--workers", type=int, metavar="N", help="processes, default: usable cores")
    options = parser.parse_args()
    if options.unlabelled and options.labels:
        raise UserError("--unlabelled and --labels: want one of them")
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers {options.workers}: want 1 or more")
    made = preprocess(
        options.source,
        options.output,
        ImageRecipe(
            options.side, options.crop, options.interpolation, options.channels, options.aspect
        ),
        dataset=options.dataset,
        labels_file=options.labels,
        first=options.first,
        workers=options.workers,
        show_progress=True,
        labelled=not options.unlabelled,
    )
    count, height, width, _ = made.images.shape
    print(f"{options.output}: {count} images of {width} x {height}")


if __name__ == "__main__":
    run_main(main)
