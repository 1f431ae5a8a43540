"""A preprocessed data set on the disk: read it, and check that its files belong together."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ck_mlperf.common.errors import UserError
from ck_mlperf.images.dataset import DATASET_CLASSES, MAP_FILE, hash_image_list, parse_labels
from ck_mlperf.images.recipe import ImageRecipe

FORMAT = 1
IMAGES_FILE = "images.npy"
MANIFEST_FILE = "manifest.json"


@dataclasses.dataclass(frozen=True)
class PreprocessedSet:
    """A preprocessed data set.

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


def hash_rows(digests: Iterable[str]) -> str:
    """images_sha256: sha256 of the rows' sha256 digests (bytes), in order, in hex.

    Not of the whole array: the workers hash while they decode, which saves a pass at the end.
    """
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


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
