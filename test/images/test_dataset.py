from __future__ import annotations

from pathlib import Path

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.images.dataset import (
    format_labels,
    hash_image_list,
    parse_labels,
    read_image_list,
)


def make_folder(folder: Path, images: list[str], **lists: list[str]) -> Path:
    for name in images:
        (folder / name).write_bytes(b"")
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


NAMES = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 7)]
LINES = [f"{name} {number}" for number, name in enumerate(NAMES)]


def test_the_order_is_that_of_the_list(tmp_path):
    make_folder(tmp_path, ["a.JPEG", "b.png", "notes.md"], val_map=["b.png 999", "", "a.JPEG 0"])
    assert read_image_list(tmp_path) == [("b.png", 999), ("a.JPEG", 0)]


def test_val_map_comes_before_val(tmp_path):
    make_folder(tmp_path, NAMES[:1], val_map=[f"{NAMES[0]} 7"], val=LINES)
    assert read_image_list(tmp_path) == [(NAMES[0], 7)]


def test_the_official_list_may_go_on_after_the_first_images(tmp_path):
    make_folder(tmp_path, NAMES[:2], val=LINES)
    assert read_image_list(tmp_path) == [(NAMES[0], 0), (NAMES[1], 1)]


@pytest.mark.parametrize("images", [[*NAMES[:1], NAMES[2]], NAMES[1:3], []])
def test_images_that_are_not_the_first_of_the_official_list(tmp_path, images):
    make_folder(tmp_path, images, val=LINES)
    with pytest.raises(UserError, match="have no image"):
        read_image_list(tmp_path)


def test_a_named_labels_file_is_used(tmp_path):
    make_folder(tmp_path, ["a.JPEG"], val_map=["a.JPEG 1"])
    other = tmp_path / "other.list"
    other.write_text("a.JPEG 2\n")
    assert read_image_list(tmp_path, other) == [("a.JPEG", 2)]


def test_labels_off_by_one_in_number(tmp_path):
    make_folder(tmp_path, NAMES, val_map=LINES[:-1])
    with pytest.raises(UserError, match=rf"5 labels.*6 images.*1 images have no .*{NAMES[-1]}"):
        read_image_list(tmp_path)


def test_a_missing_image(tmp_path):
    make_folder(tmp_path, NAMES[:-1], val_map=LINES)
    with pytest.raises(UserError, match=rf"1 labels have no image \({NAMES[-1]}\)"):
        read_image_list(tmp_path)


def test_no_labels_and_no_folder(tmp_path):
    with pytest.raises(UserError, match=r"neither val_map\.txt nor val\.txt"):
        read_image_list(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_image_list(tmp_path / "absent")
    with pytest.raises(UserError, match="no such labels file"):
        read_image_list(tmp_path, tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("a.JPEG", "want `name label`"),
        ("a.JPEG 1 2", "want `name label`"),
        ("a.JPEG one", "want `name label`"),
        ("a.JPEG -1", "want `name label`"),
        ("a.JPEG 1.0", "want `name label`"),
        ("a.JPEG \u0661", "want `name label`"),
        ("a.JPEG 1000", "want 0 to 999"),
        ("../a.JPEG 1", "no plain file name"),
        (".. 1", "no plain file name"),
        ("/etc/passwd 1", "no plain file name"),
        ("b\\a.JPEG 1", "no plain file name"),
        ("first.JPEG 1", "already on line 1"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path, line, what):
    path = tmp_path / "val_map.txt"
    path.write_text(f"first.JPEG 5\n{line}\n")
    with pytest.raises(UserError, match=f"line 2: .*{what}"):
        parse_labels(path)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00binary"])
def test_a_list_that_is_none(tmp_path, content):
    path = tmp_path / "val_map.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"val_map\.txt"):
        parse_labels(path)


def test_the_number_of_classes_bounds_the_labels(tmp_path):
    path = tmp_path / "val_map.txt"
    path.write_text("a.png 9\n")
    assert parse_labels(path, classes=10) == [("a.png", 9)]
    with pytest.raises(UserError, match="want 0 to 8"):
        parse_labels(path, classes=9)


def test_the_identity_is_that_of_the_list():
    listed = [("a.JPEG", 1), ("b.JPEG", 2)]
    assert format_labels(listed) == "a.JPEG 1\nb.JPEG 2\n"
    assert hash_image_list(listed) != hash_image_list(listed[::-1])
    assert hash_image_list(listed) != hash_image_list([("a.JPEG", 1), ("b.JPEG", 3)])


def test_the_command_writes_the_map(tmp_path, run_module):
    folder = tmp_path / "images"
    folder.mkdir()
    make_folder(folder, NAMES[:3])
    make_folder(tmp_path, [], val=LINES)
    done = run_module("images.dataset", folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    done = run_module("images.dataset", folder, "--labels", tmp_path / "val.txt", "--write-map")
    assert done.returncode == 0
    assert (folder / "val_map.txt").read_text() == "".join(f"{line}\n" for line in LINES[:3])


def test_the_real_images_have_labels(shared_data):
    listed = read_image_list(shared_data / "imagenet-500")
    assert len(listed) == 500
    assert listed[0] == ("n01440764_tench.JPEG", 0)


def test_the_real_official_list(shared_data, tmp_path):
    listed = parse_labels(shared_data / "lists" / "ILSVRC2012_val.txt")
    assert len(listed) == 50000
    make_folder(tmp_path, [name for name, _ in listed[:500]])
    assert read_image_list(tmp_path, shared_data / "lists" / "ILSVRC2012_val.txt") == listed[:500]
