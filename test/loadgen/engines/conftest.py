"""A recipe for which an image's first byte is its class."""

import pytest

from ck_mlperf.models.recipe import ModelRecipe

SIDE = 12
CLASSES = 256
RECIPE = {
    "format": 1,
    "name": "first-byte",
    "dataset": "digits",
    "input": {"name": "images", "layout": "NHWC", "dtype": "uint8"},
    "image": {
        "side": SIDE,
        "crop": 1,
        "interpolation": "area",
        "channels": "rgb",
        "aspect": "keep",
    },
    "mean": [0, 0, 0],
    "scale": [1, 1, 1],
    "output": {"name": "class", "kind": "class"},
    "classes": CLASSES,
    "labels_offset": 0,
    "max_batch": None,
    "weights": "trained",
}


@pytest.fixture
def recipe() -> ModelRecipe:
    return ModelRecipe.from_dict(RECIPE)
