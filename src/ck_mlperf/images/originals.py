"""The contents of a data set's images: one digest of all of them, and what they were compared with.

`python -m ck_mlperf.images.originals FOLDER` prints the digest of a folder, and with --archive=TAR
compares it with ILSVRC2012_img_val.tar. Needs the standard library alone: CK's hooks import it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tarfile
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import hash_file, read_json, write_file
from ck_mlperf.images.dataset import find_images

ARCHIVE_SHA256 = "c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0"
"""Of ILSVRC2012_img_val.tar, ImageNet's 50,000 validation images, 6,744,924,160 bytes. Sources:
tensorflow/datasets, tensorflow_datasets/url_checksums/imagenet2012.txt; pytorch/vision,
torchvision/prototype/datasets/_builtin/imagenet.py. Its md5 on image-net.org is
29b22e2961454d5413ddabcf34fc5622."""

NOTE_FILE = ".originals.json"
"""In a folder of images: which archive they were compared with."""


def combine_digests(digests: Mapping[str, str]) -> str:
    """The one digest of all images, in hex. digests: {file name: sha256 of its content, in hex}.

    It is the sha256 of what `LC_ALL=C sha256sum NAME...` prints for the names in sorted order, so
    `LC_ALL=C sha256sum *.JPEG | sha256sum` in a folder of the images alone gives the same.
    """
    lines = (f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def hash_images(folder: Path, names: Collection[str]) -> str:
    """The one digest of the named images of `folder`. It reads them all."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        digests = pool.map(lambda name: hash_file(folder / name), names)
        return combine_digests(dict(zip(names, digests, strict=True)))


def note_archive(folder: Path, names: Collection[str], archive_sha256: str) -> str:
    """Note that the named images of `folder` are those of an archive. Returns their digest."""
    digest = hash_images(folder, names)
    note = {"archive_sha256": archive_sha256, "files_sha256": digest}
    write_file(folder / NOTE_FILE, json.dumps(note) + "\n")
    return digest


def find_archive(folder: Path, files_sha256: str | None) -> str | None:
    """The sha256 of the archive that the images of `folder` were compared with; None: none.

    files_sha256: the images' digest now; what was noted of other contents does not count.
    """
    try:
        note = read_json(folder / NOTE_FILE)
        is_same = files_sha256 is not None and note["files_sha256"] == files_sha256
        return str(note["archive_sha256"]) if is_same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def compare_with_archive(folder: Path, archive: Path, known: str = ARCHIVE_SHA256) -> str:
    """Compare the images of `folder` with the archive, and note it there. Returns their digest.

    known: the archive's sha256. Raises UserError where the archive is another one, or where an
    image is missing, is too many or has another content.
    """
    found = hash_file(archive)
    if found != known:
        raise UserError(
            f"{archive}: its sha256 is {found}, that of ILSVRC2012_img_val.tar is {known}. Get "
            "that archive"
        )
    names = find_images(folder)
    with tarfile.open(archive) as packed:
        wanted = {
            Path(member.name).name: hashlib.sha256(content.read()).hexdigest()
            for member in packed
            if (content := packed.extractfile(member)) is not None
        }
    for said, others in (("missing", wanted.keys() - names), ("too many", names - wanted.keys())):
        if others:
            raise UserError(f"{folder}: {len(others)} images are {said}, {min(others)} among them")
    changed = [name for name in sorted(names) if hash_file(folder / name) != wanted[name]]
    if changed:
        raise UserError(
            f"{folder}: {len(changed)} images are not those of {archive}, {changed[0]} among them. "
            "Unpack the archive again"
        )
    return note_archive(folder, names, found)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ck_mlperf.images.originals",
        description="Print one digest of the contents of a folder's images.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--archive",
        type=Path,
        metavar="TAR",
        help="compare them with ILSVRC2012_img_val.tar, and note in FOLDER that they agree",
    )
    options = parser.parse_args()
    names = find_images(options.folder)
    if not names:
        raise UserError(
            f"{options.folder}: no images in it. For folders of classes, give the folder of links "
            "that `ck detect` has made of them"
        )
    if options.archive:
        digest = compare_with_archive(options.folder, options.archive)
        print(f"{options.folder}: the images of {options.archive}")
    else:
        digest = hash_images(options.folder, names)
    print(digest)


if __name__ == "__main__":
    run_main(main)
