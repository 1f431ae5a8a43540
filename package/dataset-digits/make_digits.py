"""Write scikit-learn's handwritten digits as a data set in ImageNet's form.

The source is `sklearn.datasets.load_digits`: 1797 scans of 8 x 8 pixels, grey values 0 to 16, the
test part of "Optical Recognition of Handwritten Digits" (UCI, https://doi.org/10.24432/C50P49).

The split is fixed: of each digit, the last 50 images in the source's order are held out for testing
(500 in all), the other 1297 are for training. No image is in both, and no two images are the same.

OUTPUT_DIR gets one PNG file for each image, val_map.txt (`name label`, in the source's order) and
labels.txt (line n + 1 names label n). Each image is enlarged to 32 x 32 and framed in black to
40 x 40, so that ImageNet's recipe (short side to side / 0.875, centre crop) keeps the digit whole.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import replace_folder
from ck_mlperf.images.dataset import MAP_FILE, format_labels

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LABELS_FILE = "labels.txt"
HELD_OUT_PER_DIGIT = 50
OWN_NAME = re.compile(rf"digits_(test|train)_\d{{5}}\.png|{MAP_FILE}|{LABELS_FILE}")


def load_split(split: str) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """The scans of a split, 'test' or 'train': uint8 [n, 8, 8], 0 to 16, and their n labels."""
    import numpy as np
    from sklearn.datasets import load_digits

    source = load_digits()
    held_out = np.zeros(len(source.target), bool)
    for digit in range(len(LABELS)):
        held_out[np.flatnonzero(source.target == digit)[-HELD_OUT_PER_DIGIT:]] = True
    chosen = held_out if split == "test" else ~held_out
    return source.images[chosen].astype(np.uint8), source.target[chosen].tolist()


def draw_image(scan: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The picture of a scan: uint8 [8, 8], 0 to 16, to uint8 [40, 40, 3], 0 to 255."""
    import cv2
    import numpy as np

    # INTER_LINEAR_EXACT: smooth, and the same pixels on every machine and version. 15: 16 x 15 is
    # the largest multiple that fits a byte, so no grey value is rounded.
    large = cv2.resize(scan * 15, (32, 32), interpolation=cv2.INTER_LINEAR_EXACT)
    framed = cv2.copyMakeBorder(large, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.cvtColor(framed, cv2.COLOR_GRAY2RGB), np.uint8)


def write_digits(output: Path, split: str = "test", count: int | None = None) -> int:
    """Write the first `count` images of a split (default: all) to `output`; returns how many.

    `output` is made atomically, and replaces an earlier output of this program.
    Raises UserError where `output` holds anything else or cannot be made.
    """
    output = output.resolve()
    _check_replaceable(output)

    import cv2

    scans, labels = load_split(split)
    if count is not None and not 1 <= count <= len(labels):
        raise UserError(f"--count {count}: want 1 to {len(labels)}, the images of split {split!r}")
    scans, labels = scans[:count], labels[:count]
    names = [f"digits_{split}_{number:05}.png" for number in range(1, len(labels) + 1)]
    files = {
        name: cv2.imencode(".png", draw_image(scan))[1].tobytes()
        for name, scan in zip(names, scans, strict=True)
    }
    files[LABELS_FILE] = "".join(f"{label}\n" for label in LABELS).encode()
    files[MAP_FILE] = format_labels(zip(names, labels, strict=True)).encode()
    try:
        with replace_folder(output) as made:
            for name, data in files.items():
                (made / name).write_bytes(data)
            for (
                name
            ) in files:  # after all are written, since the first flush takes most of the time
                with (made / name).open("rb") as file:
                    os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror}). Fix that, or choose another output"
        ) from None
    return len(names)


def _check_replaceable(output: Path) -> None:
    if not output.parent.is_dir():
        raise UserError(f"{output.parent}: no such folder. Make it, or choose another output")
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"{output}: is a file. Choose another output")
    foreign = sorted(path.name for path in output.iterdir() if not OWN_NAME.fullmatch(path.name))
    if foreign:
        raise UserError(
            f"{output}: holds other files ({', '.join(foreign[:3])}). "
            "Choose an empty folder, or one that does not exist"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, metavar="OUTPUT_DIR")
    parser.add_argument("--split", choices=("test", "train"), default="test")
    parser.add_argument("--count", type=int, help="only the first so many images, default: all")
    options = parser.parse_args()
    count = write_digits(options.output, options.split, options.count)
    print(f"{options.output}: {count} handwritten digits")


if __name__ == "__main__":
    run_main(main)
