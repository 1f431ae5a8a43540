"""What tests of preprocessing share."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ck_mlperf.images.dataset import read_image_list
from ck_mlperf.images.decode import decode_image
from ck_mlperf.images.recipe import ImageRecipe

from ..builders.in_process import run_here

__all__ = ["RECIPE", "SET_FILES", "change", "decode_all", "list_visible", "run_here"]

RECIPE = ImageRecipe(side=32)
SET_FILES = {"images.npy", "val_map.txt", "manifest.json"}


def list_visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def change(image: Path) -> None:
    pixels = cv2.imread(str(image))
    assert cv2.imwrite(str(image), 255 - pixels)


def decode_all(source: Path, recipe: ImageRecipe = RECIPE) -> np.ndarray:
    """The array that a set of the labelled images in `source` must have."""
    names = [name for name, _ in read_image_list(source)]
    array = np.empty((len(names), recipe.side, recipe.side, 3), np.uint8)
    for name, row in zip(names, array, strict=True):
        decode_image(source / name, recipe, row)
    return array
