"""ImageNet's validation images as people have them, as one folder with labels.

Taken are the archive ILSVRC2012_img_val.tar, a flat folder, and a folder of each class, named by
its synset (n01440764). Needs the standard library alone: CK's hooks import it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ck_mlperf.common.archives import MARKER_FILE, unpack
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import read_text, replace_folder, write_file
from ck_mlperf.images.dataset import (
    IMAGE_SUFFIXES,
    MAP_FILE,
    OFFICIAL_FILE,
    find_images,
    format_labels,
    parse_labels,
)
from ck_mlperf.images.originals import ARCHIVE_SHA256, note_archive

SYNSETS_FILE = "synsets.txt"
"""Beside val.txt in caffe_ilsvrc12.tar.gz: line n + 1 names the synset of label n."""

_OFFICIAL_NAME = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")
_SYNSET = re.compile(r"n\d{8}")


def arrange_images(
    given: Path, made: Path, obtain_labels: Callable[[], Path], known: str = ARCHIVE_SHA256
) -> Path:
    """The folder of labelled images for what the user has: `given` itself where it is one.

    Else a folder below `made`, of links to the images, with val_map.txt. given: an absolute path.
    obtain_labels: gives the folder of val.txt and synsets.txt; it is called only where labels are
    needed. known: the sha256 of the archive whose images are noted to be the originals.
    Raises UserError.
    """
    is_within = given.suffix.lower() in IMAGE_SUFFIXES or given.name in (MAP_FILE, OFFICIAL_FILE)
    if given.is_file() and is_within:
        given = given.parent  # a file of the folder stands for it
    if given.is_file():
        print(f"unpacking {given} to {made / 'unpacked'}", flush=True)
        unpack(given, made / "unpacked")
        arranged = arrange_images(made / "unpacked", made, obtain_labels)
        sha256 = read_text(made / "unpacked" / MARKER_FILE)
        if sha256 == known:
            note_archive(arranged, find_images(arranged), sha256)
        return arranged
    if not given.is_dir():
        raise UserError(f"{given}: no such folder of images, nor an archive")
    names = find_images(given)
    has_list = any((given / name).is_file() for name in (MAP_FILE, OFFICIAL_FILE))
    if has_list or not all(map(_OFFICIAL_NAME.fullmatch, names)):
        return given  # its reader says so where it has no labels
    if names:
        return _link_images({name: given / name for name in names}, made, obtain_labels())
    folders = [path for path in given.iterdir() if path.is_dir()]
    if len(folders) == 1 and not _SYNSET.fullmatch(folders[0].name):
        return arrange_images(folders[0], made, obtain_labels)
    return _link_images(_find_in_classes(given, folders), made, obtain_labels())


def _find_in_classes(folder: Path, folders: Iterable[Path]) -> dict[str, Path]:
    """{file name: path} of the images in `folders`, the classes in `folder`."""
    images: dict[str, Path] = {}
    for path in folders:
        names = find_images(path)
        if names and not _SYNSET.fullmatch(path.name):
            raise UserError(
                f"{path}: want images in one folder, or in folders of classes that are named by "
                "their synsets, such as n01440764"
            )
        for name in names:
            if name in images:
                raise UserError(f"{path / name}: {images[name]} has the same name. Rename one")
            images[name] = path / name
    if not images:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{folder}: no images ({suffixes}) in it. Give the folder that holds them")
    return images


def _link_images(images: Mapping[str, Path], made: Path, labels: Path) -> Path:
    """Make a folder of links to the images, with their labels, below `made`."""
    listed = _label_images(images, labels)
    made.mkdir(parents=True, exist_ok=True)
    with replace_folder(made / "images") as folder:
        for name, _ in listed:
            (folder / name).symlink_to(images[name])
        write_file(folder / MAP_FILE, format_labels(listed))
    return made / "images"


def _label_images(images: Mapping[str, Path], labels: Path) -> list[tuple[str, int]]:
    """[(name, label)], in the official order where all images are official ones, else by name.

    An image's label is the official one of its name, else that of its folder. Raises UserError
    where it has neither, or where the two contradict each other.
    """
    official = dict(parse_labels(labels / OFFICIAL_FILE))
    synsets = read_text(labels / SYNSETS_FILE).split()
    label_of = {synset: label for label, synset in enumerate(synsets)}
    found: dict[str, int] = {}
    for name, path in images.items():
        by_name, by_folder = official.get(name), label_of.get(path.parent.name)
        label = by_folder if by_name is None else by_name
        if label is None:
            raise UserError(
                f"{path}: neither {labels / OFFICIAL_FILE} has its name nor "
                f"{labels / SYNSETS_FILE} its folder's. Put {MAP_FILE} beside the images, with "
                "lines `name label`"
            )
        if by_folder not in (None, label):
            raise UserError(
                f"{path}: is in the folder of label {by_folder}, its label is {label} in "
                f"{labels / OFFICIAL_FILE}. Put it into the folder {synsets[label]}"
            )
        found[name] = label
    if official.keys() >= found.keys():
        return [(name, label) for name, label in official.items() if name in found]
    return sorted(found.items())
