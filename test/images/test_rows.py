"""The pixels that are loaded are those that were made."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.preprocessed import (
    IMAGES_FILE,
    ROWS_FILE,
    PreprocessedSet,
    load_preprocessed,
)

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


def check(images: PreprocessedSet, rows: Sequence[int]) -> None:
    with images.check_loading(rows):
        pass


def spoil(folder: Path, row: int) -> None:
    images = np.lib.format.open_memmap(folder / IMAGES_FILE, mode="r+")
    images[row, 0, 0, 0] ^= 1


def test_one_bit_of_a_loaded_image_is_noticed(whole: Path) -> None:
    spoil(whole, 140)
    images = load_preprocessed(whole)
    check(images, range(140))
    check(images, [])
    name = re.escape(images.names[140])
    with pytest.raises(UserError, match=rf"1 of the 3 images to load, first 140 \({name}\)"):
        check(images, [3, 140, 5])


def test_what_is_written_while_images_are_loaded_is_noticed(whole: Path) -> None:
    images = load_preprocessed(whole)

    def load() -> None:
        with images.check_loading([0, 1]):
            spoil(whole, 1)

    with pytest.raises(UserError, match=f"{IMAGES_FILE} was written to"):
        load()


def test_the_list_of_hashes_is_itself_checked(whole: Path) -> None:
    path = whole / ROWS_FILE
    right = path.read_text().split()
    for wrong in (right[:-1], right[::-1], ["x"] * COUNT, ["\udcff"]):
        path.write_bytes("\n".join(wrong).encode(errors="surrogateescape"))
        with pytest.raises(UserError, match=ROWS_FILE):
            check(load_preprocessed(whole), [0])


def test_a_set_of_an_older_version_gets_the_list(whole: Path) -> None:
    right = (whole / ROWS_FILE).read_text()
    (whole / ROWS_FILE).unlink()
    check(load_preprocessed(whole), [0])
    assert (whole / ROWS_FILE).read_text() == right


def test_a_spoilt_set_of_an_older_version_is_refused(whole: Path) -> None:
    (whole / ROWS_FILE).unlink()
    spoil(whole, 7)
    with pytest.raises(UserError, match="has changed since it was made"):
        check(load_preprocessed(whole), [0])
    assert not (whole / ROWS_FILE).exists()
