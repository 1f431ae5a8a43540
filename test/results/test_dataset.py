"""The record's part on the images."""

from __future__ import annotations

import pytest

from ck_mlperf.images.originals import ARCHIVE_SHA256
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.results.build import describe_dataset
from ck_mlperf.results.rules import has_whole_list, is_whole_validation_set, load_rules

WHOLE = {
    "dataset": "imagenet",
    "count": 50_000,
    "recipe": ImageRecipe().to_dict(),
    "images_sha256": "1" * 64,
    "source_list_sha256": load_rules()["dataset"]["list_sha256"],
    "source_state_sha256": "2" * 64,
    "source_files_sha256": "3" * 64,
    "opencv": "5.0",
}


@pytest.mark.parametrize(
    ("archive", "known_by"),
    [(ARCHIVE_SHA256, "contents"), ("0" * 64, "names and labels only"),
     (None, "names and labels only")],
)  # fmt: skip
def test_the_whole_set_is_claimed_by_the_contents_alone(archive, known_by):
    dataset = describe_dataset({**WHOLE, "source_archive_sha256": archive}, 50_000)
    assert dataset.known_by == known_by
    assert has_whole_list(dataset)
    assert is_whole_validation_set(dataset) == (known_by == "contents")


def test_a_part_of_it_is_not_the_whole_set():
    dataset = describe_dataset({**WHOLE, "source_archive_sha256": ARCHIVE_SHA256}, 500)
    assert not is_whole_validation_set(dataset)
    assert not has_whole_list(dataset)


def test_other_images_are_known_by_nothing():
    other = {**WHOLE, "source_list_sha256": "0" * 64, "source_archive_sha256": ARCHIVE_SHA256}
    dataset = describe_dataset(other, 50_000)
    assert dataset.known_by is None
    assert not is_whole_validation_set(dataset)


def test_the_digest_of_the_files_is_recorded_where_it_is_of_contents():
    assert describe_dataset(WHOLE, 500).source_files_sha256 == "3" * 64
    earlier = {key: value for key, value in WHOLE.items() if key != "source_state_sha256"}
    assert describe_dataset(earlier, 500).source_files_sha256 is None
