"""A data set in ImageNet's form: a folder of images and a list of lines `name label`.

`python -m ck_mlperf.images.dataset FOLDER` checks one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import is_plain_name, read_text, write_file

# Number of labels of each known data set; labels run from 0.
DATASET_CLASSES = {"imagenet": 1000, "digits": 10}

IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})

# The names of a list, in order of precedence. The second is ILSVRC2012's (caffe_ilsvrc12.tar.gz).
MAP_FILE = "val_map.txt"
OFFICIAL_FILE = "val.txt"

_NAMED_AT_MOST = 3


def read_image_list(
    folder: Path, labels_file: Path | None = None, classes: int = DATASET_CLASSES["imagenet"]
) -> list[tuple[str, int]]:
    """The images of `folder` with their labels, in the list's order: [(file name, label)].

    The list is `labels_file`, else folder/val_map.txt, else folder/val.txt. It must name the images
    of the folder, with one exception: the official val.txt may be longer, if the images are its
    first ones (CK's 500-image subset is). Raises UserError on anything that would give an image a
    wrong label, and on images that are missing.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images")
    path = labels_file or _find_labels_file(folder)
    listed = parse_labels(path, classes)
    names = [name for name, _ in listed]
    present = find_images(folder)
    unlabelled = sorted(present.difference(names))
    missing = [name for name in names if name not in present]
    if path.name.endswith(OFFICIAL_FILE) and present and not unlabelled:
        if present.issuperset(names[: len(present)]):
            return listed[: len(present)]
        missing = [name for name in names[: len(present)] if name not in present]
    problems = []
    if unlabelled:
        problems.append(f"{len(unlabelled)} images have no label ({_some(unlabelled)})")
    if missing:
        problems.append(f"{len(missing)} labels have no image ({_some(missing)})")
    if problems:
        raise UserError(
            f"{path} has {len(listed)} labels, {folder} has {len(present)} images: "
            f"{' and '.join(problems)}. Give the list that belongs to these images, "
            "or restore the missing ones"
        )
    return listed


def list_unlabelled(folder: Path) -> list[tuple[str, int]]:
    """The images of `folder`, sorted by name, with 0 in place of a label: [(file name, 0)].

    For calibration, which needs no labels. Raises UserError where there is no image, or where a
    name has a space, which a labels file cannot contain.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images")
    names = sorted(find_images(folder))
    if not names:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{folder}: no images ({suffixes}) in it. Give the folder that holds them")
    spaced = [name for name in names if name.split() != [name]]
    if spaced:
        raise UserError(f"{folder}: {spaced[0]!r} has a space in its name. Rename such images")
    return [(name, 0) for name in names]


def parse_labels(path: Path, classes: int = DATASET_CLASSES["imagenet"]) -> list[tuple[str, int]]:
    """The lines `name label` of `path`: [(name, label)], labels in 0..classes-1.

    Raises UserError with the line's number on a malformed line, a label out of range, a name that
    is no plain file name, or a name that occurs twice.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such labels file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file of lines `name label`") from None
    listed: list[tuple[str, int]] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        fields = line.split()
        if len(fields) != 2 or not (fields[1].isascii() and fields[1].isdigit()):
            raise UserError(f"{where}: want `name label`, got {line[:80]!r}")
        name, label = fields[0], int(fields[1])
        if label >= classes:
            raise UserError(f"{where}: label {label} of {name}: want 0 to {classes - 1}")
        if not is_plain_name(name):
            raise UserError(f"{where}: {name[:80]!r} is no plain file name")
        if name in line_of:
            raise UserError(f"{where}: {name} is already on line {line_of[name]}")
        line_of[name] = number
        listed.append((name, label))
    if not listed:
        raise UserError(f"{path}: no labels in it")
    return listed


def format_labels(listed: Iterable[tuple[str, int]]) -> str:
    """The text of a labels file, the opposite of `parse_labels`."""
    return "".join(f"{name} {label}\n" for name, label in listed)


def hash_image_list(listed: Sequence[tuple[str, int]]) -> str:
    """The identity of a data set: sha256, in hex, of its list as `format_labels` writes it."""
    return hashlib.sha256(format_labels(listed).encode()).hexdigest()


def find_images(folder: Path) -> set[str]:
    """The names of the images in `folder`."""
    names = os.listdir(folder)  # not by Path: of 50,000 images, at the start of each run
    return {name for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES}


def _find_labels_file(folder: Path) -> Path:
    for name in (MAP_FILE, OFFICIAL_FILE):
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder}: neither {MAP_FILE} nor {OFFICIAL_FILE} in it. Put one of them there, with "
        "lines `name label`, or name the labels file"
    )


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NAMED_AT_MOST else ""
    return ", ".join(names[:_NAMED_AT_MOST]) + more


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ck_mlperf.images.dataset", description="Check a folder of labelled images."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="lines `name label`")
    parser.add_argument("--dataset", choices=sorted(DATASET_CLASSES), default="imagenet")
    parser.add_argument(
        "--write-map", action="store_true", help=f"write the images' labels to FOLDER/{MAP_FILE}"
    )
    options = parser.parse_args()
    listed = read_image_list(options.folder, options.labels, DATASET_CLASSES[options.dataset])
    if options.write_map:
        write_file(options.folder / MAP_FILE, format_labels(listed))
    print(f"{options.folder}: {len(listed)} images, list sha256 {hash_image_list(listed)}")


if __name__ == "__main__":
    run_main(main)
