"""Make a folder of links to the images that a list names: MLPerf's calibration set of ImageNet.

A line of the list starts with the name of an image; the rest of the line is ignored.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import is_plain_name, read_text, replace_folder


def pick_images(listed: Path, source: Path, output: Path) -> int:
    """Link the images of `source` that are listed into the folder `output`; returns how many.

    `output` is made atomically, and replaces an earlier one. Raises UserError where an image is
    missing or a name is no plain file name.
    """
    lines = read_text(listed).splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    foreign = [name for name in names if not is_plain_name(name)]
    missing = [name for name in names if not (source / name).is_file()]
    if not names or foreign:
        raise UserError(f"{listed}: want names of images, got {foreign[:1] or 'none'}")
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(names)} images that {listed} names are not in {source} "
            f"({missing[0]}). Give all 50,000 validation images: "
            "ck detect soft:dataset.imagenet.val --full_path=FOLDER"
        )
    with replace_folder(output) as made:
        for name in names:
            (made / name).symlink_to((source / name).resolve())
    return len(names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", type=Path, required=True, metavar="FILE")
    parser.add_argument("--source", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args()
    count = pick_images(options.list, options.source, options.output)
    print(f"{options.output}: {count} images")


if __name__ == "__main__":
    run_main(main)
