"""Whether a preprocessed set is still what its originals would give."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.images.originals import combine_digests, hash_images, note_archive
from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.source import find_changes

from .conftest import RECIPE, change


@pytest.fixture
def made(images, tmp_path):
    preprocess(images, tmp_path / "set", RECIPE)
    return tmp_path / "set"


def edit_manifest(made, **edit) -> None:
    path = made / "manifest.json"
    status = path.stat()
    manifest = json.loads(path.read_text()) | edit
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value}))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_unchanged_touched_and_copied_images_are_the_same(images, made, tmp_path):
    assert find_changes(made, images) == []
    os.utime(images / "05.png")
    assert find_changes(made, images) == []
    shutil.copytree(images, tmp_path / "copy", copy_function=shutil.copyfile)
    assert find_changes(made, tmp_path / "copy") == []


def test_a_changed_image_and_a_changed_label_are_found(images, made):
    labels = (images / "val_map.txt").read_text()
    (images / "val_map.txt").write_text(labels.replace(" 7\n", " 8\n"))
    assert find_changes(made, images) == [f"the list of images and labels in {images} has changed"]
    (images / "val_map.txt").write_text(labels)
    change(images / "05.png")
    assert find_changes(made, images) == [f"images in {images} have changed"]


def test_the_first_images_do_not_depend_on_the_others(images, tmp_path):
    preprocess(images, tmp_path / "set", RECIPE, first=3)
    change(images / "05.png")
    assert find_changes(tmp_path / "set", images) == []
    change(images / "38.png")
    assert find_changes(tmp_path / "set", images) == [f"images in {images} have changed"]


def test_unlabelled_images(images, tmp_path):
    (images / "val_map.txt").unlink()
    preprocess(images, tmp_path / "set", RECIPE, labelled=False)
    assert find_changes(tmp_path / "set", images) == []
    (images / "05.png").unlink()
    (reason,) = find_changes(tmp_path / "set", images)
    assert "list of images" in reason


def test_a_set_without_its_images_is_taken_as_it_is(images, made):
    for path in images.glob("*.png"):
        path.unlink()
    assert find_changes(made, images) == []
    shutil.rmtree(images)
    assert find_changes(made, images) == []


def test_images_that_are_partly_gone_are_an_error(images, made):
    (images / "05.png").unlink()
    with pytest.raises(UserError, match=r"no image \(05\.png\)"):
        find_changes(made, images)


def test_an_unfinished_set(images, tmp_path):
    (reason,) = find_changes(tmp_path, images)
    assert "no finished preprocessed data set" in reason


def test_a_set_of_an_earlier_version_is_taken_unless_an_image_is_newer(images, made):
    """Its manifest has no digests of contents; its source_files_sha256 is of another kind."""
    edit_manifest(made, source_state_sha256=None, source_files_sha256="0" * 64)
    assert find_changes(made, images) == []
    os.utime(images / "05.png", (2**32, 2**32))
    assert find_changes(made, images) == [f"images in {images} have changed"]


def test_the_manifest_has_the_digest_of_what_was_decoded(images, made):
    manifest = json.loads((made / "manifest.json").read_text())
    names = [path.name for path in images.glob("*.png")]
    assert manifest["source_files_sha256"] == hash_images(images, names)
    assert "source_archive_sha256" not in manifest


def test_what_was_compared_with_an_archive_since_reaches_the_manifest_without_decoding(
    images, made, monkeypatch
):
    names = [path.name for path in images.glob("*.png")]
    note_archive(images, names, "a" * 64)
    assert find_changes(made, images) == [
        f"the images in {images} were compared with their archive"
    ]
    before = (made / "images.npy").stat().st_mtime_ns
    manifest = preprocess(images, made, RECIPE).manifest
    assert manifest["source_archive_sha256"] == "a" * 64
    assert (made / "images.npy").stat().st_mtime_ns == before
    assert find_changes(made, images) == []
    change(images / "05.png")
    assert "source_archive_sha256" not in preprocess(images, made, RECIPE).manifest


def test_the_digest_is_that_of_sha256sums_output():
    digests = {"b.JPEG": "1" * 64, "a.JPEG": "0" * 64}
    # printf '%s  a.JPEG\n%s  b.JPEG\n' 000... 111... | sha256sum
    assert combine_digests(digests) == combine_digests(dict(reversed(digests.items())))
    assert combine_digests(digests) != combine_digests({"a.JPEG": "1" * 64, "b.JPEG": "0" * 64})
