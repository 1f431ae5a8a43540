"""What tests of conversion share: a network to convert, and images to calibrate on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.models.convert import convert
from ck_mlperf.models.recipe import load_model_recipe

from ..builders.in_process import run_here
from ..builders.networks import SIDE, draw_images, make_network, save_network
from ..builders.tiny_model import make_onnx, write_recipe

__all__ = ["run_here"]


def check(path: Path) -> onnx.ModelProto:
    """What must hold for every converted file."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {one.domain for one in model.graph.node} <= {"", "ai.onnx"}
    assert [opset.domain for opset in model.opset_import] == [""]
    names = [one.name for one in model.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    assert (len(model.graph.input), len(model.graph.output)) == (1, 1)
    used = {name for one in model.graph.node for name in one.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
    return model


@pytest.fixture(scope="session")
def make_calibration(tmp_path_factory) -> Callable[..., Path]:
    """`make_calibration(side=8, crop=1.0)`: the folder of a set of 64 preprocessed images."""
    cv2 = pytest.importorskip("cv2")
    made: dict[ImageRecipe, Path] = {}

    def make(**image: Any) -> Path:
        recipe = ImageRecipe(**({"side": SIDE, "crop": 1.0} | image))
        if recipe not in made:
            folder = tmp_path_factory.mktemp("calibration")
            source = folder / "images"
            source.mkdir()
            for number, pixels in enumerate(draw_images(64)):
                assert cv2.imwrite(str(source / f"{number:02}.png"), pixels)
            lines = [f"{number:02}.png 0\n" for number in range(64)]
            (source / "val_map.txt").write_text("".join(lines))
            preprocess(source, folder / "set", recipe, dataset="digits")
            made[recipe] = folder / "set"
        return made[recipe]

    return make


@pytest.fixture
def calibration(make_calibration) -> Path:
    return make_calibration()


@pytest.fixture
def make(tmp_path, calibration) -> Callable[..., Path]:
    """`make(source, precision, ...)` converts, and checks what holds for every result."""

    def convert_it(source: Path, wanted: str = "fp32", *kinds: str, **options: Any) -> Path:
        if wanted == "int8":
            options.setdefault("calibration", calibration)
        output = tmp_path / "made" / f"{wanted}.onnx"
        made = convert(source, output, wanted, *kinds, **options)
        check(output)
        assert load_model_recipe(output) == made
        return output

    return convert_it


@pytest.fixture
def source(tmp_path) -> Path:
    return save_network(tmp_path / "small.onnx", make_network())


@pytest.fixture
def model(tmp_path) -> Path:
    """A tiny model with a complete recipe."""
    path = make_onnx(tmp_path / "tiny.onnx")
    write_recipe(path)
    return path
