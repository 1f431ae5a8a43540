"""The digits: their network, as it is in the repository, and images of them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

PACKAGES = Path(__file__).resolve().parents[2] / "package"
MAKE_DIGITS = PACKAGES / "dataset-digits" / "make_digits.py"
DIGITS_MODEL = PACKAGES / "model-onnx-digits" / "digits.onnx"


def make_digits(folder: Path, split: str = "test", count: int | None = None) -> None:
    """Write the first `count` digits of a split to `folder`, as the package's script does."""
    pytest.importorskip("sklearn")
    script = runpy.run_path(str(MAKE_DIGITS))
    script["write_digits"](folder, split, count)
