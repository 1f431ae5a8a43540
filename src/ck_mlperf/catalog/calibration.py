"""The images that int8 is calibrated with.

Handwritten digits are installed, from the part that the network was trained on. ImageNet's are the
user's to name: validation images are never taken where nobody asked to calibrate with them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ck_mlperf.catalog.images import Preprocessing
from ck_mlperf.catalog.kernel import Catalog, Entry
from ck_mlperf.catalog.request import CALIBRATION
from ck_mlperf.common.errors import UserError
from ck_mlperf.images.recipe import ImageRecipe


def calibration_tags(recipe: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """The tags of the original calibration images, and of the array that is made of them."""
    image = ImageRecipe.from_dict(recipe["image"])
    common = {"dataset", CALIBRATION, recipe["dataset"]}
    return common | {"original"}, common | {"preprocessed", *image.tags()}


def find_calibration(catalog: Catalog, recipe: Mapping[str, Any]) -> Entry | None:
    """The array of the registered calibration images as they are now; None without one."""
    original_tags, tags = calibration_tags(recipe)
    for original in catalog.find(original_tags):
        entry, _ = Preprocessing(catalog, tags, original, recipe).find()
        if entry:
            return entry
    return None


def obtain_calibration(
    catalog: Catalog, recipe: Mapping[str, Any], asked: Collection[str] = (), pinned: str = ""
) -> Entry:
    """Calibration images, preprocessed for a model's recipe; made where they are not there.

    asked: further tags that they must have. pinned: the UID of the entry to take.
    """
    if pinned:
        return catalog.load_pinned(CALIBRATION, pinned)
    original_tags, tags = calibration_tags(recipe)
    original = obtain_original(catalog, original_tags, recipe["dataset"])
    return Preprocessing(catalog, {*tags, *asked}, original, recipe).obtain()


def obtain_original(catalog: Catalog, tags: Collection[str], dataset: str) -> Entry:
    """The registered calibration images. Raises UserError where there are none, or several."""
    originals = catalog.find(tags)
    if len(originals) > 1:
        paths = "\n".join(
            f"  ck rm env:{entry.uid} --force   ({entry.path})" for entry in originals
        )
        raise UserError(
            f"more than one set of calibration images is registered:\n{paths}\n"
            "Let CK forget the others by these commands; the images stay where they are"
        )
    if originals:
        return originals[0]
    if dataset != "digits":
        raise UserError(
            "int8 needs images to calibrate with, and none are registered. Register a folder of "
            "images that are in no accuracy test: "
            f"`ck detect soft:dataset.{dataset}.calibration --full_path=FOLDER`. "
            "For MLPerf's list, with all 50,000 validation images registered: "
            "`ck install package:dataset-imagenet-calibration`"
        )
    return catalog.install(catalog.load_package("dataset-digits-calibration"), tags)
