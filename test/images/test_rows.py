"""The pixels that are loaded are those that were made."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.preprocessed import IMAGES_FILE, ROWS_FILE, load_preprocessed

from ..builders.images import write_images
from .conftest import RECIPE

COUNT = 150  # more than one thread's share


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write_images(folder / "images", COUNT)
    preprocess(folder / "images", folder / "set", RECIPE)
    return folder / "set"


@pytest.fixture
def whole(made: Path, tmp_path: Path) -> Path:
    """A set for a test to spoil."""
    return shutil.copytree(made, tmp_path / "set")


def spoil(folder: Path, row: int) -> None:
    images = np.lib.format.open_memmap(folder / IMAGES_FILE, mode="r+")
    images[row, 0, 0, 0] ^= 1


def test_one_bit_of_a_loaded_image_is_noticed(whole: Path) -> None:
    spoil(whole, 140)
    images = load_preprocessed(whole)
    images.check_rows(range(140))
    images.check_rows([])
    with pytest.raises(UserError, match=rf"pixels of {images.names[140]} and of 0 others"):
        images.check_rows([3, 140, 5])


def test_the_list_of_hashes_is_itself_checked(whole: Path) -> None:
    path = whole / ROWS_FILE
    right = path.read_text().split()
    for wrong in (right[:-1], right[::-1], ["x"] * COUNT, ["\udcff"]):
        path.write_bytes("\n".join(wrong).encode(errors="surrogateescape"))
        with pytest.raises(UserError, match=ROWS_FILE):
            load_preprocessed(whole).check_rows([0])


def test_a_set_of_an_older_version_gets_the_list(whole: Path) -> None:
    right = (whole / ROWS_FILE).read_text()
    (whole / ROWS_FILE).unlink()
    load_preprocessed(whole).check_rows([0])
    assert (whole / ROWS_FILE).read_text() == right


def test_a_spoilt_set_of_an_older_version_is_refused(whole: Path) -> None:
    (whole / ROWS_FILE).unlink()
    spoil(whole, 7)
    with pytest.raises(UserError, match="has changed since it was made"):
        load_preprocessed(whole).check_rows([0])
    assert not (whole / ROWS_FILE).exists()
