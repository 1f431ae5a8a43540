"""Making a preprocessed set."""

from __future__ import annotations

import os
import shutil
import signal

import cv2
import numpy as np
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.images import workers as module
from ck_mlperf.images.dataset import read_image_list
from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.preprocessed import load_preprocessed
from ck_mlperf.images.recipe import ImageRecipe

from .conftest import RECIPE, SET_FILES, change, decode_all, list_visible


def test_rows_labels_and_names_are_in_the_order_of_the_list(images, tmp_path):
    made = preprocess(images, tmp_path / "out", RECIPE)
    assert np.array_equal(made.images, decode_all(images))
    assert made.names[0] == "39.png"
    assert made.labels.tolist() == [label for _, label in read_image_list(images)]
    assert made.labels.dtype == np.int32
    assert isinstance(made.images, np.memmap)
    assert not made.images.flags.writeable
    assert made.recipe == RECIPE
    assert list_visible(tmp_path / "out") == SET_FILES | {"rows.sha256"}
    assert not list((tmp_path / "out").glob(".partial-*"))
    assert np.array_equal(np.load(tmp_path / "out" / "images.npy", allow_pickle=False), made.images)
    assert (tmp_path / "out" / "val_map.txt").read_text() == (images / "val_map.txt").read_text()


@pytest.mark.parametrize("workers", [2, 3, 100])
def test_the_bytes_do_not_depend_on_the_workers(images, tmp_path, workers):
    preprocess(images, tmp_path / "one", RECIPE, workers=1)
    preprocess(images, tmp_path / "more", RECIPE, workers=workers)
    for name in SET_FILES:
        one, more = ((tmp_path / out / name).read_bytes() for out in ("one", "more"))
        assert one == more, name


def test_the_manifest_says_what_was_made(images, tmp_path):
    manifest = preprocess(images, tmp_path / "out", RECIPE, first=10).manifest
    assert manifest["count"] == 10
    assert manifest["source_count"] == 40
    assert manifest["recipe"] == RECIPE.to_dict()
    assert manifest["opencv"] == cv2.__version__
    assert "pillow" not in manifest
    whole = preprocess(images, tmp_path / "whole", RECIPE).manifest
    assert whole["source_list_sha256"] == manifest["source_list_sha256"]
    assert whole["images_sha256"] != manifest["images_sha256"]


def test_the_first_images(images, tmp_path):
    made = preprocess(images, tmp_path / "out", RECIPE, first=3)
    assert made.names == ["39.png", "38.png", "37.png"]
    for first in (0, -1, 41):
        with pytest.raises(UserError, match="has 40"):
            preprocess(images, tmp_path / "out", RECIPE, first=first)


def test_what_is_there_is_not_made_again(images, tmp_path):
    out = tmp_path / "out"
    preprocess(images, out, RECIPE)
    before = (out / "images.npy").stat().st_mtime_ns
    preprocess(images, out, RECIPE)
    assert (out / "images.npy").stat().st_mtime_ns == before


def test_another_recipe_and_another_source_make_it_anew(images, tmp_path):
    out = tmp_path / "out"
    preprocess(images, out, RECIPE)
    other = ImageRecipe(side=32, channels="bgr")
    assert np.array_equal(preprocess(images, out, other).images, decode_all(images, other))
    change(images / "05.png")
    assert np.array_equal(preprocess(images, out, other).images, decode_all(images, other))


def test_a_damaged_image_is_named_and_nothing_looks_whole(images, tmp_path, run_here):
    (images / "07.png").write_bytes(b"<html>not found</html>")
    out = tmp_path / "out"
    done = run_here("images.preprocess", "--source", images, "--output", out, "--side", 32)
    assert done.returncode == 2
    assert "07.png: no image but a web page" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list_visible(out)
    with pytest.raises(UserError, match="no finished"):
        load_preprocessed(out)
    shutil.copy(images / "08.png", images / "07.png")
    assert np.array_equal(preprocess(images, out, RECIPE).images, decode_all(images))


def test_a_missing_image_is_named(images, tmp_path):
    (images / "07.png").unlink()
    with pytest.raises(UserError, match=r"07\.png"):
        preprocess(images, tmp_path / "out", RECIPE)


def test_the_output_cannot_be_the_source(images):
    with pytest.raises(UserError, match="cannot be the folder"):
        preprocess(images, images, RECIPE)
    assert "manifest.json" not in list_visible(images)


def test_a_worker_that_is_killed_is_an_error_and_no_hang(images, tmp_path, monkeypatch):
    parent = os.getpid()

    def die(*_):
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(module, "decode_image", die)
    with pytest.raises(UserError, match="was killed"):
        preprocess(images, tmp_path / "out", RECIPE)
    monkeypatch.undo()
    assert np.array_equal(preprocess(images, tmp_path / "out", RECIPE).images, decode_all(images))


def test_an_unwritable_folder(images, run_here):
    done = run_here("images.preprocess", "--source", images, "--output", "/proc/none/out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: /proc/")
    assert done.stderr.count("\n") == 1


def test_progress_is_a_line_every_tenth_without_a_terminal(images, tmp_path, run_module):
    out = tmp_path / "out"
    done = run_module("images.preprocess", "--source", images, "--output", out, "--side", 32)
    assert (done.returncode, done.stdout) == (0, f"{out}: 40 images of 32 x 32\n")
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 10
    assert lines[-1] == "preprocessed 40 of 40 images"


def test_a_bad_option_is_an_error(images, tmp_path, run_here):
    for option, value in (("--workers", 0), ("--crop", 2), ("--first", 0)):
        done = run_here(
            "images.preprocess", "--source", images, "--output", tmp_path / "out", option, value
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")


def test_digits_have_ten_labels(images, tmp_path):
    with pytest.raises(UserError, match="want 0 to 9"):
        preprocess(images, tmp_path / "out", RECIPE, dataset="digits")
