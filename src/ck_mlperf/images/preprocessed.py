"""A preprocessed data set on the disk: read it, and check that its files belong together."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import open_regular, read_state, read_text, write_file
from ck_mlperf.images.dataset import DATASET_CLASSES, MAP_FILE, hash_image_list, parse_labels
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.images.source import MANIFEST_FILE, read_manifest

IMAGES_FILE = "images.npy"
ROWS_FILE = "rows.sha256"
"""sha256 of each image's pixels, in hex, a line each; `hash_rows` of them is in the manifest."""
_ROWS_A_TASK = 64


@dataclasses.dataclass(frozen=True)
class PreprocessedSet:
    """A preprocessed data set.

    images: uint8 [n, side, side, 3], memory-mapped, read-only.
    labels: int32 [n], 0 to classes-1.
    names: the n source files' names.
    manifest: format, dataset, count, recipe, images_sha256 (see `hash_rows`), labels_sha256 (of
    val_map.txt), source_list_sha256 (of the whole source list), source_count, opencv and, where it
    was used, pillow (versions); labelled: false where the labels mean nothing. Of the files that
    were decoded: source_files_sha256 (names and contents, see `originals.combine_digests`),
    source_state_sha256 (names, sizes and times), source_archive_sha256 where they were compared
    with an archive. In sets without a source_state_sha256, which earlier versions made,
    source_files_sha256 is of names, sizes and times.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    names: list[str]
    manifest: dict[str, Any]
    folder: Path

    @contextlib.contextmanager
    def check_loading(self, rows: Sequence[int]) -> Iterator[None]:
        """Load these images in the block. Raises UserError unless their pixels are those that were
        made.

        Hashes them before, on as many threads as there are processors; after, nobody must have
        written to the file meanwhile.
        """
        path, known = self.folder / IMAGES_FILE, self._row_hashes
        state = read_state(path)
        parts = [rows[first : first + _ROWS_A_TASK] for first in range(0, len(rows), _ROWS_A_TASK)]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            found = pool.map(lambda part: self._find_changed(part, known), parts)
            changed = [row for part in found for row in part]
        if changed:
            raise UserError(
                f"{path}: {len(changed)} of the {len(rows)} images to load, first {changed[0]} "
                f"({self.names[changed[0]]}), have changed since they were made. {self._advice}"
            )
        yield
        if read_state(path) != state:
            raise UserError(f"{path} was written to while images were loaded. Run again")

    @property
    def _advice(self) -> str:
        return f"Remove {self.folder}, and `ck run` preprocesses the images again"

    def _find_changed(self, rows: Sequence[int], known: Sequence[str]) -> list[int]:
        return [row for row in rows if hash_row(self.images[row]) != known[row]]

    @functools.cached_property
    def _row_hashes(self) -> list[str]:
        """Each image's, as the set has them; of a set that an older version made, as it is now."""
        path, is_listed = self.folder / ROWS_FILE, True
        try:
            hashes = read_text(path).split()
        except FileNotFoundError:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                hashes, is_listed = list(pool.map(hash_row, self.images)), False
        except ValueError:
            hashes = []
        if len(hashes) != len(self.images) or not _is_whole(hashes, self.manifest):
            raise UserError(
                f"{self.folder}: {ROWS_FILE} or {IMAGES_FILE} has changed since it was made. "
                f"{self._advice}"
            )
        if not is_listed:
            with contextlib.suppress(OSError):  # a folder that cannot be written to has none
                write_file(path, format_row_hashes(hashes))
        return hashes

    @property
    def recipe(self) -> ImageRecipe:
        return ImageRecipe.from_dict(self.manifest["recipe"])


def load_preprocessed(folder: Path, verify: bool = False) -> PreprocessedSet:
    """Open a preprocessed data set. `verify` also hashes every pixel.

    Raises UserError where the set is absent or unfinished, or where its files do not fit together.
    """
    manifest = read_manifest(folder)
    recipe = ImageRecipe.from_dict(manifest["recipe"])
    shape = (manifest["count"], recipe.side, recipe.side, 3)
    advice = f"Remove {folder} and preprocess again"
    path = folder / IMAGES_FILE
    try:
        images = open_array(path)
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
    return PreprocessedSet(images, np.array(labels, np.int32), list(names), manifest, folder)


def open_array(path: Path) -> np.memmap[Any, np.dtype[Any]]:
    """The array in a file, memory-mapped, read-only. Raises ValueError where it is damaged."""
    open_regular(path).close()  # to open a FIFO would wait for its writer
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (tokenize.TokenError, SyntaxError, TypeError, OverflowError) as error:
        raise ValueError(f"its header is damaged: {error}") from None  # numpy reads it as Python


def format_row_hashes(hashes: Iterable[str]) -> str:
    """The content of ROWS_FILE."""
    return "".join(f"{digest}\n" for digest in hashes)


def _is_whole(hashes: Iterable[str], manifest: Mapping[str, Any]) -> bool:
    try:
        return bool(hash_rows(hashes) == manifest["images_sha256"])
    except ValueError:  # not hex
        return False


class RowDigests(NamedTuple):
    """sha256 of one image's pixels and of the file that it was decoded from, in hex."""

    pixels: str
    content: str


def hash_row(row: npt.NDArray[np.uint8]) -> str:
    """sha256 of one image's pixels, in hex."""
    return hashlib.sha256(row.data).hexdigest()


def hash_rows(digests: Iterable[str]) -> str:
    """images_sha256: sha256 of the rows' sha256 digests (bytes), in order, in hex.

    Not of the whole array: the workers hash while they decode, which saves a pass at the end.
    """
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()
