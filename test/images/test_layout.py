"""ImageNet as people have it: an archive, a flat folder, a folder of each class."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file
from ck_mlperf.images.dataset import read_image_list
from ck_mlperf.images.layout import arrange_images
from ck_mlperf.images.originals import find_archive, hash_images

NAMES = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 5)]
LABELS = [2, 0, 1, 2]
SYNSETS = ["n01440764", "n01443537", "n01484850"]
LISTED = list(zip(NAMES, LABELS, strict=True))


@pytest.fixture
def aux(tmp_path) -> Path:
    """What caffe_ilsvrc12.tar.gz has of four images and three classes."""
    folder = tmp_path / "aux"
    folder.mkdir()
    (folder / "val.txt").write_text("".join(f"{name} {label}\n" for name, label in LISTED))
    (folder / "synsets.txt").write_text("".join(f"{synset}\n" for synset in SYNSETS))
    return folder


@pytest.fixture
def arrange(aux, tmp_path):
    """arrange(given): the list of the folder that it becomes, and that folder."""

    def arrange(given: Path, **options):
        folder = arrange_images(given, tmp_path / "made", lambda: aux, **options)
        return read_image_list(folder), folder

    return arrange


def write_flat(folder: Path, names: list[str] = NAMES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


def write_classes(folder: Path, listed: list[tuple[str, int]]) -> Path:
    for name, label in listed:
        write_flat(folder / SYNSETS[label], [name])
    return folder


def write_tar(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(Path(name).name)
            tar.addfile(member, io.BytesIO(Path(name).name.encode()))
    return path


def test_a_folder_with_a_list_is_taken_as_it_is(tmp_path):
    given = write_flat(tmp_path / "val")
    (given / "val.txt").write_text("".join(f"{name} 0\n" for name in NAMES))
    assert arrange_images(given, tmp_path / "made", pytest.fail) == given
    for name in (NAMES[2], "val.txt"):
        assert arrange_images(given / name, tmp_path / "made", pytest.fail) == given
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("names", [NAMES, NAMES[1:3]])
def test_a_flat_folder_gets_the_official_labels(arrange, tmp_path, names):
    given = write_flat(tmp_path / "val", names)
    listed, folder = arrange(given)
    assert listed == [pair for pair in LISTED if pair[0] in names]
    assert sorted(path.name for path in given.iterdir()) == names  # nothing was put there
    assert (folder / names[0]).read_bytes() == names[0].encode()


def test_folders_of_classes_get_the_official_order(arrange, tmp_path):
    listed, folder = arrange(write_classes(tmp_path / "val", LISTED))
    assert listed == LISTED
    assert (folder / NAMES[3]).read_bytes() == NAMES[3].encode()


def test_one_folder_around_it_does_not_matter(arrange, tmp_path):
    write_classes(tmp_path / "imagenet" / "val", LISTED)
    assert arrange(tmp_path / "imagenet")[0] == LISTED


def test_other_images_in_folders_of_classes_have_their_folders_labels(arrange, tmp_path):
    given = write_classes(tmp_path / "val", [("b.JPEG", 1), ("a.png", 2)])
    assert arrange(given)[0] == [("a.png", 2), ("b.JPEG", 1)]


@pytest.mark.parametrize("folder", ["", "val/", "./"])
def test_the_archive(arrange, tmp_path, folder):
    archive = write_tar(tmp_path / "val.tar", [f"{folder}{name}" for name in NAMES])
    listed, made = arrange(archive)
    assert listed == LISTED
    assert made.is_relative_to(tmp_path / "made")
    assert find_archive(made, hash_images(made, NAMES)) is None  # it is not the published one


def test_an_archive_of_classes(arrange, tmp_path):
    names = [f"{SYNSETS[label]}/{name}" for name, label in LISTED]
    assert arrange(write_tar(tmp_path / "val.tar", names))[0] == LISTED


def test_the_published_archive_makes_its_images_the_originals(arrange, tmp_path):
    archive = write_tar(tmp_path / "val.tar", NAMES)
    sha256 = hash_file(archive)
    _, made = arrange(archive, known=sha256)
    assert find_archive(made, hash_images(made, NAMES)) == sha256
    assert find_archive(made, "0" * 64) is None


def test_it_is_made_again_in_place(arrange, tmp_path):
    given = write_flat(tmp_path / "val", NAMES[:2])
    _, first = arrange(given)
    (given / NAMES[0]).unlink()
    listed, second = arrange(given)
    assert (first, listed) == (second, LISTED[1:2])
    assert not (first / NAMES[0]).is_symlink()


@pytest.mark.parametrize("name", ["../out.JPEG", "/tmp/out.JPEG"])
def test_an_archive_that_points_outside(arrange, tmp_path, name):
    with pytest.raises(UserError, match="points outside the folder: refused"):
        arrange(write_tar(tmp_path / "val.tar", [name]))
    assert not (tmp_path / "made" / "unpacked").exists()


def test_an_archive_with_a_link(arrange, tmp_path):
    with tarfile.open(tmp_path / "val.tar", "w") as tar:
        member = tarfile.TarInfo(NAMES[0])
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(UserError, match="is a link"):
        arrange(tmp_path / "val.tar")


def test_a_label_that_contradicts_the_folder(arrange, tmp_path):
    given = write_classes(tmp_path / "val", [*LISTED[1:], (NAMES[0], 1)])
    with pytest.raises(UserError, match=rf"label 1, its label is 2 .*{SYNSETS[2]}"):
        arrange(given)


def test_folders_that_are_no_classes(arrange, tmp_path):
    for name in ("cats", "dogs"):
        write_flat(tmp_path / "val" / name, [f"{name}.JPEG"])
    with pytest.raises(UserError, match=r"named by their synsets, such as n01440764"):
        arrange(tmp_path / "val")


def test_an_unknown_class(arrange, tmp_path):
    write_flat(tmp_path / "val" / SYNSETS[0], ["a.JPEG"])
    write_flat(tmp_path / "val" / "n99999999", ["b.JPEG"])
    with pytest.raises(UserError, match=r"b\.JPEG: neither .*val\.txt .*synsets\.txt"):
        arrange(tmp_path / "val")


def test_two_images_of_one_name(arrange, tmp_path):
    for synset in SYNSETS[:2]:
        write_flat(tmp_path / "val" / synset, ["a.JPEG"])
    with pytest.raises(UserError, match="has the same name"):
        arrange(tmp_path / "val")


def test_nothing_of_use(arrange, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        arrange(tmp_path / "empty")
    with pytest.raises(UserError, match="no such folder of images, nor an archive"):
        arrange(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("no archive")
    with pytest.raises(UserError, match="no tar or zip archive"):
        arrange(tmp_path / "notes.txt")


def test_other_names_without_a_list_are_left_to_the_reader(arrange, tmp_path):
    with pytest.raises(UserError, match=r"neither val_map\.txt nor val\.txt"):
        arrange(write_flat(tmp_path / "val", ["cat.JPEG"]))
