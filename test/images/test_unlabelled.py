"""Images without labels: calibration sets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.images.dataset import list_unlabelled
from ck_mlperf.images.preprocess import load_preprocessed, preprocess
from ck_mlperf.images.recipe import ImageRecipe

RECIPE = ImageRecipe(side=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for name, level in [("b.png", 20), ("a.png", 10), ("c.PNG", 30)]:
        cv2.imwrite(str(images / name), np.full((12, 12, 3), level, np.uint8))
    (images / "notes.txt").write_text("no image")
    return images


def test_every_image_in_the_order_of_the_names(folder: Path) -> None:
    assert list_unlabelled(folder) == [("a.png", 0), ("b.png", 0), ("c.PNG", 0)]


def test_they_are_preprocessed_without_a_list_and_say_so(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "made"
    made = preprocess(folder, output, RECIPE, labelled=False)
    assert made.manifest["labelled"] is False
    assert made.names == ["a.png", "b.png", "c.PNG"]
    assert made.images[:, 0, 0, 0].tolist() == [10, 20, 30]
    changed = (output / "images.npy").stat().st_mtime_ns
    preprocess(folder, output, RECIPE, labelled=False)
    assert (output / "images.npy").stat().st_mtime_ns == changed
    (folder / "b.png").unlink()
    preprocess(folder, output, RECIPE, labelled=False)
    assert load_preprocessed(output, verify=True).names == ["a.png", "c.PNG"]


def test_labelled_images_still_need_their_list(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither val_map"):
        preprocess(folder, tmp_path / "made", RECIPE)
    (folder / "val_map.txt").write_text("a.png 1\nb.png 2\nc.PNG 3\n")
    made = preprocess(folder, tmp_path / "made", RECIPE)
    assert "labelled" not in made.manifest


@pytest.mark.parametrize(("name", "said"), [(None, "no images"), ("a b.png", "has a space")])
def test_folders_that_are_no_calibration_set(tmp_path: Path, name: str | None, said: str) -> None:
    if name:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=said):
        list_unlabelled(tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        list_unlabelled(tmp_path / "absent")
