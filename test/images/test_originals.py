"""The digest of a data set's images, and what compares them with their archive."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file
from ck_mlperf.images.originals import (
    NOTE_FILE,
    compare_with_archive,
    find_archive,
    hash_images,
)

NAMES = ["b.JPEG", "a.JPEG", "c.JPEG"]


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "val"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def archive(folder, tmp_path) -> Path:
    path = tmp_path / "val.tar"
    with tarfile.open(path, "w") as tar:
        for name in NAMES:
            tar.add(folder / name, name)
    return path


def test_the_digest_is_what_sha256sum_gives(folder, run_here):
    command = "LC_ALL=C sha256sum *.JPEG | sha256sum"
    printed = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
    digest = printed.stdout.split()[0]
    assert hash_images(folder, NAMES) == hash_images(folder, NAMES[::-1]) == digest
    assert run_here("images.originals", folder).stdout.split() == [digest]


def test_the_archives_images_are_noted(folder, archive):
    digest = compare_with_archive(folder, archive, hash_file(archive))
    assert digest == hash_images(folder, NAMES)
    assert find_archive(folder, digest) == hash_file(archive)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "a.JPEG").write_bytes(b"other"), r"1 images are not those of"),
        (lambda folder: (folder / "a.JPEG").unlink(), r"missing, a\.JPEG"),
        (lambda folder: (folder / "d.JPEG").write_bytes(b"more"), r"too many, d\.JPEG"),
    ],
)
def test_other_images_are_refused_and_not_noted(folder, archive, change, said):
    change(folder)
    with pytest.raises(UserError, match=said):
        compare_with_archive(folder, archive, hash_file(archive))
    assert not (folder / NOTE_FILE).exists()


def test_another_archive_is_refused(folder, archive, run_here):
    done = run_here("images.originals", folder, "--archive", archive)
    assert done.returncode == 2
    assert "that of ILSVRC2012_img_val.tar is c7e06a6c" in done.stderr


def test_a_folder_without_images_has_no_digest(tmp_path, run_here):
    done = run_here("images.originals", tmp_path)
    assert done.returncode == 2
    assert "no images in it" in done.stderr


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"files_sha256": 1}'])
def test_a_note_that_is_none(folder, note):
    (folder / NOTE_FILE).write_text(note)
    assert find_archive(folder, hash_images(folder, NAMES)) is None
