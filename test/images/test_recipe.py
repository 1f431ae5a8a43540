from __future__ import annotations

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.images.recipe import ImageRecipe


def test_the_default_is_that_of_resnet50():
    recipe = ImageRecipe()
    assert recipe.resized_side == 256
    assert recipe.tags() == [
        "using-opencv", "side.224", "crop.875", "inter.area", "rgb8", "aspect.keep",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "recipe",
    [
        ImageRecipe(),
        ImageRecipe(299, 1, "cubic", "bgr"),
        ImageRecipe(28, 0.29, "linear", "rgb", "stretch"),
        ImageRecipe(224, 0.875, "antialias"),
    ],
)
def test_tags_and_dict_give_the_recipe_back(recipe):
    assert ImageRecipe.from_tags([*recipe.tags(), "dataset", "first.20"]) == recipe
    assert ImageRecipe.from_dict(recipe.to_dict()) == recipe


def test_a_crop_of_29_percent_is_290_thousandths():
    # 0.29 * 100 is 28.999999999999996
    assert ImageRecipe(crop=0.29).crop_permille == 290


@pytest.mark.parametrize(
    "fields",
    [
        {"side": 0},
        {"side": 224.0},
        {"side": True},
        {"side": 5000},
        {"crop": 0},
        {"crop": 1.001},
        {"crop": 0.8755},
        {"crop": float("nan")},
        {"crop": "0.875"},
        {"interpolation": "nearest"},
        {"channels": "gray"},
        {"channels": None},
        {"aspect": "squash"},
    ],
)
def test_a_bad_field_is_named(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        ImageRecipe(**fields)


@pytest.mark.parametrize("tag", ["side.", "side.abc", "side.-3", "crop.0", "crop.0.875", "inter."])
def test_a_bad_tag_is_an_error(tag):
    with pytest.raises(UserError):
        ImageRecipe.from_tags([tag])


def test_tags_that_disagree_are_an_error():
    with pytest.raises(UserError, match=r"side\.299"):
        ImageRecipe.from_tags(["side.224", "side.299"])


@pytest.mark.parametrize("change", [{"resize": 256}, {"side": None}])
def test_a_dict_holds_exactly_the_fields(change):
    with pytest.raises(UserError):
        ImageRecipe.from_dict(ImageRecipe().to_dict() | change)


def test_a_dict_without_aspect_keeps_it():
    data = ImageRecipe().to_dict()
    del data["aspect"]
    assert ImageRecipe.from_dict(data) == ImageRecipe()
    del data["side"]
    with pytest.raises(UserError, match="side"):
        ImageRecipe.from_dict(data)
