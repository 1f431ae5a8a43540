"""Pixels to a model's input tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from ck_mlperf.common.errors import UserError
from ck_mlperf.models.recipe import load_model_recipe, normalise, tabulate_pixels

from ..builders.tiny_model import make_onnx, write_recipe


def make_recipe(tmp_path: Path, dtype: int, layout: str, **changes: Any) -> Any:
    shape = ("N", 3, 8, 8) if layout == "NCHW" else ("N", 8, 8, 3)
    path = make_onnx(tmp_path / "tiny.onnx", shape, dtype=dtype)
    write_recipe(path, **changes)
    return load_model_recipe(path)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("dtype", "name", "tolerance"),
    [(TensorProto.FLOAT, "float32", 1e-6), (TensorProto.FLOAT16, "float16", 1e-3)],
)
def test_normalise(tmp_path, layout, dtype, name, tolerance):
    recipe = make_recipe(tmp_path, dtype, layout)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    expected = (images.astype(np.float64) - [1, 2, 3]) * [0.5, 0.25, 2]
    if layout == "NCHW":
        expected = expected.transpose(0, 3, 1, 2)
    made = normalise(images, recipe)
    assert (made.dtype, made.shape, made.flags.c_contiguous) == (name, expected.shape, True)
    np.testing.assert_allclose(made, expected, rtol=tolerance)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_normalise_to_uint8_keeps_the_pixels(tmp_path, layout):
    with pytest.raises(UserError, match="takes pixels as they are"):
        make_recipe(tmp_path, TensorProto.UINT8, layout)
    recipe = make_recipe(tmp_path, TensorProto.UINT8, layout, mean=[0, 0, 0], scale=[1, 1, 1])
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    expected = images.transpose(0, 3, 1, 2) if layout == "NCHW" else images
    made = normalise(images, recipe)
    assert np.array_equal(made, expected)
    assert made.flags.c_contiguous


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_normalise_to_int8_is_what_onnx_quantises(tmp_path, layout):
    recipe = make_recipe(tmp_path, TensorProto.INT8, layout, input={"step": 0.75})
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    values = (images.astype(np.float64) - [1, 2, 3]) * [0.5, 0.25, 2] / 0.75
    if layout == "NCHW":
        values = values.transpose(0, 3, 1, 2)
    assert values.max() > 128  # what is beyond int8 is its last value
    made = normalise(images, recipe)
    assert (made.dtype, made.shape, made.flags.c_contiguous) == (np.int8, values.shape, True)
    assert np.array_equal(made, values.round().clip(-128, 127))


def test_normalise_to_int8_rounds_half_to_even_and_saturates(tmp_path):
    changes = {"mean": [4, 5, 0], "scale": [1, -100, 1], "input": {"step": 2}}
    recipe = make_recipe(tmp_path, TensorProto.INT8, "NHWC", **changes)
    images = np.zeros((1, 8, 8, 3), np.uint8)
    images[0, 0, :, 0] = [1, 2, 3, 4, 5, 6, 7, 9]  # -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2.5
    images[0, 0, :, 1] = [0, 2, 4, 5, 6, 7, 8, 255]
    images[0, 0, :, 2] = [0, 1, 3, 5, 252, 253, 254, 255]
    made = normalise(images, recipe)[0, 0]
    assert made[:, 0].tolist() == [-2, -1, 0, 0, 0, 1, 2, 2]
    assert made[:, 1].tolist() == [127, 127, 50, 0, -50, -100, -128, -128]
    assert made[:, 2].tolist() == [0, 0, 2, 2, 126, 126, 127, 127]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16", "INT8", "UINT8"])
def test_a_table_of_what_normalise_makes_of_each_pixel_value(tmp_path, layout, dtype):
    changes: dict[str, Any] = {"input": {"step": 0.75}} if dtype == "INT8" else {}
    if dtype == "UINT8":
        changes = {"mean": [0, 0, 0], "scale": [1, 1, 1]}
    recipe = make_recipe(tmp_path, TensorProto.DataType.Value(dtype), layout, **changes)
    table = tabulate_pixels(recipe)
    assert (table.shape, table.dtype) == ((3, 256), np.dtype(recipe.input.dtype))
    assert table.flags.c_contiguous
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    made = normalise(images, recipe)
    planes = made if layout == "NCHW" else made.transpose(0, 3, 1, 2)
    for colour in range(3):
        assert np.array_equal(table[colour][images[..., colour]], planes[:, colour])


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 9, 8, 3), np.uint8), np.zeros((8, 8, 3))],
)
def test_normalise_takes_no_other_images(model, images):
    with pytest.raises(ValueError, match="want uint8"):
        normalise(images, load_model_recipe(model))


def test_normalise_of_no_images(model):
    assert normalise(np.empty((0, 8, 8, 3), np.uint8), load_model_recipe(model)).shape[0] == 0
