"""Reading a preprocessed set: what does not fit together is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.preprocessed import load_preprocessed

from ..builders.images import write_images
from .conftest import RECIPE, SET_FILES


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("preprocessed")
    write_images(folder / "images")
    preprocess(folder / "images", folder / "set", RECIPE)
    return folder / "set"


@pytest.fixture
def whole(made, tmp_path) -> Path:
    """A set for a test to spoil."""
    return shutil.copytree(made, tmp_path / "set")


@pytest.mark.parametrize("name", sorted(SET_FILES))
def test_a_set_without_one_of_its_files(whole, name):
    (whole / name).unlink()
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        load_preprocessed(whole)


@pytest.mark.parametrize("by", [-1, 1])
def test_an_array_too_short_or_too_long(whole, by):
    path = whole / "images.npy"
    os.truncate(path, path.stat().st_size + by)
    with pytest.raises(UserError, match=r"images\.npy"):
        load_preprocessed(whole)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((40, 32, 32, 3), np.int8),
        np.zeros((40, 32, 32), np.uint8),
        np.zeros((39, 32, 32, 3), np.uint8),
        np.asfortranarray(np.zeros((40, 32, 32, 3), np.uint8)),
        np.array([{}], dtype=object),
    ],
)
def test_an_array_of_another_kind(whole, array):
    np.save(whole / "images.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=r"images\.npy"):
        load_preprocessed(whole)


@pytest.mark.parametrize("old", [b"'fortran_order'", b"(40, 32"])
def test_an_array_with_a_damaged_header(whole, old):
    """numpy reads it as Python, and lets several of Python's errors through."""
    path = whole / "images.npy"
    for new in (b"'fort\n", b"[[", b"{}: 1, "):
        content = path.read_bytes()
        path.write_bytes(content.replace(old, new.ljust(len(old)), 1))
        with pytest.raises(UserError, match=r"images\.npy"):
            load_preprocessed(whole)
        path.write_bytes(content)


def test_an_archive_in_place_of_the_array(whole):
    with (whole / "images.npy").open("wb") as file:
        np.savez(file, images=np.zeros((40, 32, 32, 3), np.uint8))
    with pytest.raises(UserError, match=r"images\.npy"):
        load_preprocessed(whole)


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: lines[:-1],
        lambda lines: lines[::-1],
        lambda lines: [*lines[:-1], "00.png 999"],
        lambda lines: [*lines, "more.png 1"],
    ],
)
def test_labels_that_changed(whole, edit):
    path = whole / "val_map.txt"
    path.write_text("".join(f"{line}\n" for line in edit(path.read_text().splitlines())))
    with pytest.raises(UserError, match="not the labels"):
        load_preprocessed(whole)


@pytest.mark.parametrize(
    "edit",
    [
        {"format": 2},
        {"dataset": "cifar"},
        {"dataset": {}},
        {"count": 39},
        {"count": "40"},
        {"recipe": None},
        {"recipe": {"side": 32}},
        {"images_sha256": None},
    ],
)
def test_a_manifest_that_does_not_fit(whole, edit):
    path = whole / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(UserError):
        load_preprocessed(whole)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"format": 1'])
def test_a_manifest_that_is_none(whole, text):
    (whole / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json"):
        load_preprocessed(whole)


def test_verify_finds_a_changed_pixel(whole):
    with (whole / "images.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    assert len(load_preprocessed(whole).images) == 40
    with pytest.raises(UserError, match="pixels have changed"):
        load_preprocessed(whole, verify=True)
