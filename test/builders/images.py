"""Small images with labels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest


def write_images(folder: Path, count: int = 40) -> None:
    """Write small images with labels, without loss, of several shapes."""
    folder.mkdir()
    random = np.random.default_rng(2)
    lines = []
    for number in range(count):
        height, width = [(60, 80), (80, 60), (50, 50)][number % 3]
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"{number:02}.png"), pixels)
        lines.append(f"{number:02}.png {number * 7 % 1000}\n")
    (folder / "val_map.txt").write_text("".join(lines[::-1]))  # the list's order is not by name


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 40 small images with labels."""
    folder = tmp_path / "images"
    write_images(folder)
    return folder
