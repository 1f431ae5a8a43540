"""A preprocessed data set on the disk: read it, and check that its files belong together."""

from __future__ import annotations

import dataclasses
import hashlib
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import open_regular
from ck_mlperf.images.dataset import DATASET_CLASSES, MAP_FILE, hash_image_list, parse_labels
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.images.source import MANIFEST_FILE, read_manifest

IMAGES_FILE = "images.npy"


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
    return PreprocessedSet(images, np.array(labels, np.int32), list(names), manifest)


def open_array(path: Path) -> np.memmap[Any, np.dtype[Any]]:
    """The array in a file, memory-mapped, read-only. Raises ValueError where it is damaged."""
    open_regular(path).close()  # to open a FIFO would wait for its writer
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (tokenize.TokenError, SyntaxError, TypeError, OverflowError) as error:
        raise ValueError(f"its header is damaged: {error}") from None  # numpy reads it as Python


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
