"""Calibration: its images are never made up."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ck_mlperf.common.errors import UserError

from ..builders.networks import SIDE, make_network, node, save_network, write_recipe

pytestmark = pytest.mark.slow  # nothing in it depends on the version of Python


def test_int8_without_images(source, make):
    with pytest.raises(UserError, match=r"calibration needs images of digits, .* --calibration"):
        make(source, "int8", calibration=None)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ({"crop": 0.875}, "crop is 0.875, not 1.0"),
        ({"channels": "bgr"}, "channels is 'bgr', not 'rgb'"),
        ({"side": 16}, "side is 16, not 8"),
    ],
)
def test_images_of_another_recipe(source, make, make_calibration, image, told):
    with pytest.raises(UserError, match=rf"calibration needs .* another set: {told}"):
        make(source, "int8", calibration=make_calibration(**image))


def test_images_of_another_data_set(source, make, calibration):
    write_recipe(source, dataset="imagenet", weights="random")
    with pytest.raises(UserError, match="dataset is 'digits', not 'imagenet'"):
        make(source, "int8")


def test_a_folder_that_is_no_set(source, make, tmp_path):
    with pytest.raises(UserError, match=r"calibration needs .* no finished preprocessed data set"):
        make(source, "int8", calibration=tmp_path)


@pytest.fixture
def own_set(calibration, tmp_path) -> Path:
    """A copy of the calibration set, for a test that spoils it."""
    folder = tmp_path / "set"
    shutil.copytree(calibration, folder)
    return folder


def test_a_set_whose_pixels_have_changed(source, make, own_set):
    content = bytearray((own_set / "images.npy").read_bytes())
    content[-1] ^= 1
    (own_set / "images.npy").write_bytes(content)
    with pytest.raises(UserError, match="its pixels have changed"):
        make(source, "int8", calibration=own_set)


def test_an_empty_set(source, make, own_set):
    np.save(own_set / "images.npy", np.empty((0, SIDE, SIDE, 3), np.uint8))
    (own_set / "val_map.txt").write_text("")
    manifest = json.loads((own_set / "manifest.json").read_text())
    empty = {"count": 0, "labels_sha256": hashlib.sha256().hexdigest()}
    (own_set / "manifest.json").write_text(json.dumps(manifest | empty))
    with pytest.raises(UserError, match=r"calibration needs .* no labels in it"):
        make(source, "int8", calibration=own_set)


@pytest.mark.parametrize("count", [0, -1, 65])
def test_a_count_that_the_set_does_not_have(source, make, count):
    with pytest.raises(UserError, match=rf"1 to 64 images, which .* has, not {count}"):
        make(source, "int8", calibration_count=count)


@pytest.mark.parametrize("option", ["calibration", "calibration_count"])
def test_calibration_is_for_int8(source, make, option):
    with pytest.raises(UserError, match="calibration is for int8, not for fp16"):
        make(source, "fp16", **{option: {"calibration": source.parent}.get(option, 3)})


def test_a_value_that_is_infinite(tmp_path, make):
    network = make_network()
    network.weights["zero"] = np.array([0], np.float32)
    network.nodes[1:2] = [node("Div", "c1 zero", "r1")]
    source = save_network(tmp_path / "small.onnx", network)
    with pytest.raises(UserError, match="r1 is infinite, or no number"):
        make(source, "int8")
