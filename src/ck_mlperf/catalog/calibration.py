"""The images that int8 is calibrated with, and images preprocessed for a model.

Handwritten digits are installed, from the part that the network was trained on. ImageNet's are the
user's to name: validation images are never taken where nobody asked to calibrate with them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from typing import Any

from ck_mlperf.catalog.kernel import Catalog, Entry
from ck_mlperf.catalog.request import CALIBRATION
from ck_mlperf.common.errors import UserError
from ck_mlperf.images.recipe import ImageRecipe

FIRST_IMAGES = "first."
"""A tag of so many images, the first ones of a data set."""


def calibration_tags(recipe: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """The tags of the original calibration images, and of the array that is made of them."""
    image = ImageRecipe.from_dict(recipe["image"])
    common = {"dataset", CALIBRATION, recipe["dataset"]}
    return common | {"original"}, common | {"preprocessed", *image.tags()}


def find_calibration(catalog: Catalog, recipe: Mapping[str, Any]) -> Entry | None:
    """The array of the registered calibration images as it is now, None where there is none."""
    original_tags, tags = calibration_tags(recipe)
    originals = {entry.uid for entry in catalog.find(original_tags)}
    for entry in catalog.find(tags):
        if entry.dep_uid("dataset") in originals and read_manifest(entry):
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
    for entry in catalog.find({*tags, *asked}):
        if entry.dep_uid("dataset") == original.uid:
            return entry
    return preprocess(catalog, {*tags, *asked}, recipe, {"dataset": original.uid})


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


def preprocess(
    catalog: Catalog,
    tags: Collection[str],
    recipe: Mapping[str, Any],
    pinned: Mapping[str, str] | None = None,
) -> Entry:
    """Install the preprocessed images with the tags, for a model's recipe."""
    image = recipe["image"]
    environment = {
        "DATASET": recipe["dataset"],
        "IMAGE_SIDE": image["side"],
        "IMAGE_CROP": image["crop"],
        "IMAGE_INTERPOLATION": image["interpolation"],
        "IMAGE_CHANNELS": image["channels"],
        "IMAGE_ASPECT": image["aspect"],
    }
    for tag in tags:  # CK knows some counts as variations; a run takes any
        if tag.startswith(FIRST_IMAGES):
            environment["IMAGE_COUNT"] = tag.removeprefix(FIRST_IMAGES)
    (package,) = catalog.find_packages({"dataset", "preprocessed"})
    values = {name: str(value) for name, value in environment.items()}
    return catalog.install(package, tags, values, pinned)


def read_manifest(entry: Entry) -> dict[str, Any]:
    """The manifest of preprocessed images; {} where there is none."""
    try:
        with open(os.path.join(entry.path, "manifest.json"), encoding="utf-8") as file:
            manifest: dict[str, Any] = json.load(file)
    except (OSError, ValueError):
        return {}
    return manifest
