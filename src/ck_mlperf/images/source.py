"""What a preprocessed set is made from, and whether that is still what it was made from.

Needs the standard library alone: CK's hooks import it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import read_json
from ck_mlperf.images.dataset import (
    DATASET_CLASSES,
    find_images,
    hash_image_list,
    list_unlabelled,
    read_image_list,
)
from ck_mlperf.images.originals import find_archive, hash_images

FORMAT = 1
MANIFEST_FILE = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Source:
    """The images that a preprocessed set is made from.

    kept: [(file name, label)], in the list's order. facts: what the manifest says of the list.
    states: of each kept file, its size in bytes and the time of its last change in ns.
    """

    kept: list[tuple[str, int]]
    facts: dict[str, Any]
    states: list[str]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.kept]

    @property
    def state_sha256(self) -> str:
        """It differs where an image was added, removed or written again."""
        lines = (f"{name} {state}\n" for name, state in zip(self.names, self.states, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_source(
    folder: Path,
    dataset: str = "imagenet",
    labels_file: Path | None = None,
    first: int | None = None,
    labelled: bool = True,
) -> Source:
    """The images of `folder`, or only the `first` N of them. labelled: False takes every image.

    Raises UserError on images or labels that are missing or wrong.
    """
    if labelled:
        listed = read_image_list(folder, labels_file, DATASET_CLASSES[dataset])
    else:
        listed = list_unlabelled(folder)
    if first is not None and not 1 <= first <= len(listed):
        raise UserError(f"first {first} images wanted: {folder} has {len(listed)}")
    kept = listed[:first]
    facts = {
        "dataset": dataset,
        "count": len(kept),
        "labels_sha256": hash_image_list(kept),
        "source_list_sha256": hash_image_list(listed),
        "source_count": len(listed),
        **({} if labelled else {"labelled": False}),
    }
    return Source(kept, facts, [_describe_file(os.path.join(folder, name)) for name, _ in kept])


def find_changes(made: Path, folder: Path) -> list[str]:
    """Why the preprocessed set in `made` is not what the images in `folder` would give; [] else.

    A set whose images are gone is taken as it is. Files that were only touched or copied are read
    and compared by content. Raises UserError where images or labels are missing or wrong.
    """
    try:
        manifest = read_manifest(made)
    except UserError as error:
        return [str(error)]
    if not folder.is_dir() or not find_images(folder):
        return []
    count = manifest["count"]
    source = read_source(
        folder,
        manifest["dataset"],
        first=count if count != manifest.get("source_count", count) else None,
        labelled=manifest.get("labelled", True),
    )
    if source.facts["source_list_sha256"] != manifest["source_list_sha256"]:
        return [f"the list of images and labels in {folder} has changed"]
    if _has_changed(source, folder, made, manifest):
        return [f"images in {folder} have changed"]
    archive = find_archive(folder, manifest.get("source_files_sha256"))
    if archive and archive != manifest.get("source_archive_sha256"):
        return [f"the images in {folder} were compared with their archive"]
    return []


def _has_changed(source: Source, folder: Path, made: Path, manifest: dict[str, Any]) -> bool:
    if "source_state_sha256" not in manifest:  # an earlier version's, without digests of contents
        made_ns = (made / MANIFEST_FILE).stat().st_mtime_ns
        return any(int(state.split()[1]) > made_ns for state in source.states)
    return bool(
        source.state_sha256 != manifest["source_state_sha256"]
        and hash_images(folder, source.names) != manifest["source_files_sha256"]
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the preprocessed set in `folder`. Raises UserError without a sound one."""
    path = folder / MANIFEST_FILE
    try:
        manifest = read_json(path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: not there, so {path.parent} is no finished preprocessed data set. "
            "Preprocess the images first"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}). Preprocess the images again") from None
    texts = ("images_sha256", "labels_sha256", "source_list_sha256", "opencv")
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != FORMAT
        or manifest.get("dataset") not in [*DATASET_CLASSES]  # a list: JSON has what has no hash
        or type(manifest.get("count")) is not int
        or not isinstance(manifest.get("recipe"), dict)
        or not all(isinstance(manifest.get(key), str) for key in texts)
    ):
        raise UserError(f"{path}: not a manifest of format {FORMAT}. Preprocess the images again")
    return manifest


def _describe_file(path: str) -> str:
    status = os.stat(path)
    return f"{status.st_size} {status.st_mtime_ns}"
