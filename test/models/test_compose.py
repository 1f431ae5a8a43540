"""What goes into a converted model and what comes out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from ck_mlperf.common.errors import UserError
from ck_mlperf.models.compose import compose
from ck_mlperf.models.network import read_network
from ck_mlperf.models.precisions import FILE_PRECISIONS
from ck_mlperf.models.recipe import InputSpec, load_model_recipe

from ..builders.networks import (
    CLASSES,
    FLOAT,
    MEAN,
    SCALE,
    SIDE,
    draw_images,
    kinds,
    list_readers,
    make_network,
    node,
    run,
    save_network,
    transpose_first,
)

pytestmark = pytest.mark.slow  # nothing in it depends on the version of Python


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("batch", ["N", 4])
def test_pixels_in_and_scores_out_are_the_same_to_the_bit(tmp_path, make, layout, batch):
    network = make_network(layout=layout, batch=batch)
    if layout == "NHWC":
        network.nodes.insert(0, node("Transpose", "images", "planar", perm=[0, 3, 1, 2]))
        network.nodes[1].input[0] = "planar"
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(12)
    made = make(source, "fp32", "uint8", "scores")
    np.testing.assert_array_equal(run(made, images), run(source, images))
    model = onnx.load(made)
    assert kinds(model)["Transpose"] == 1
    shape = [dim.dim_value or "N" for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == [batch, SIDE, SIDE, 3]
    recipe = load_model_recipe(made)
    assert recipe.max_batch == (None if batch == "N" else batch)


@pytest.mark.parametrize("wanted", FILE_PRECISIONS)
@pytest.mark.parametrize("input_kind", ["uint8", "fp32"])
@pytest.mark.parametrize("output_kind", ["class", "scores"])
def test_every_variation(source, make, wanted, input_kind, output_kind):
    images = draw_images(64)
    expected = run(source, images)
    assert len(np.unique(expected.argmax(axis=1))) >= 8  # a wrong answer is seen as one
    made = make(source, wanted, input_kind, output_kind)
    model, got = onnx.load(made), run(made, images)
    tensor = model.graph.input[0].type.tensor_type
    assert tensor.elem_type == (TensorProto.UINT8 if input_kind == "uint8" else FLOAT)
    if output_kind == "scores":
        assert (got.dtype, got.shape) == (np.float32, (64, CLASSES))
        tolerance = {"fp32": 0, "fp16": 5e-3, "int8": 0.1}[wanted]
        assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()
    else:
        assert (got.dtype, got.shape) == (np.int32, (64,))
        share = (got == expected.argmax(axis=1)).mean()
        assert share >= {"fp32": 1, "fp16": 0.98, "int8": 0.9}[wanted]
    recipe = load_model_recipe(made)
    assert (recipe.output.name, recipe.output.kind) == (output_kind, output_kind)
    assert recipe.input.name == "images"


def test_preprocessing_of_nothing_adds_nothing(tmp_path, make):
    source = save_network(tmp_path / "small.onnx", make_network(), mean=[0] * 3, scale=[1] * 3)
    made = make(source)
    assert run(made, draw_images(8)).tolist() == run(source, draw_images(8)).argmax(1).tolist()
    assert not kinds(onnx.load(made)) & Counter(["Sub", "Mul"])


NATIVE = {
    "fp32": ("float32", FLOAT),
    "fp16": ("float16", TensorProto.FLOAT16),
    "int8": ("int8", TensorProto.INT8),
}


def assert_same_answers(made: Path, images: np.ndarray, expected: np.ndarray, wanted: str) -> None:
    """To the bit, but for float16, which ONNX Runtime computes in float32 on a CPU: it does not
    round to float16 what it has itself made, and `normalise` does."""
    tolerance = 1e-3 if wanted == "fp16" else 0
    np.testing.assert_allclose(run(made, images), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("wanted", FILE_PRECISIONS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("batch", ["N", 4])
def test_samples_prepared_before_give_the_same_answers(tmp_path, make, wanted, layout, batch):
    """They are prepared by `normalise`, and in the other file of that conversion by its graph."""
    network = make_network(batch=batch)
    if layout == "NHWC":
        network = transpose_first(network)
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(64)
    expected = run(make(source, wanted, "uint8", "scores"), images)
    made = make(source, wanted, "native", "scores")
    assert_same_answers(made, images, expected, wanted)
    assert len(np.unique(expected, axis=0)) == len(images)  # no two of them look the same to it
    model, recipe = onnx.load(made), load_model_recipe(made)
    name, elem_type = NATIVE[wanted]
    assert (recipe.input.name, recipe.input.layout, recipe.input.dtype) == ("images", "NCHW", name)
    assert (recipe.mean, recipe.scale) == (tuple(MEAN), tuple(SCALE))
    assert recipe.max_batch == (None if batch == "N" else batch)
    assert recipe.conversion is not None
    assert recipe.conversion["input"] == "native"
    tensor = model.graph.input[0].type.tensor_type
    shape = [dim.dim_value or dim.dim_param for dim in tensor.shape.dim]
    assert (tensor.elem_type, shape) == (elem_type, [batch, 3, SIDE, SIDE])
    first = "DequantizeLinear" if wanted == "int8" else "Conv"
    assert list_readers(model, "images") == [first]
    assert not kinds(model)["Transpose"]
    if wanted == "int8":
        (back,) = (one for one in model.graph.node if one.input[0] == "images")
        constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        assert recipe.input.step == constants[back.input[1]]
    else:
        assert recipe.input.step is None


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_network_that_takes_uint8_itself_keeps_that(tmp_path, make, layout):
    network = make_network(dtype=TensorProto.UINT8)
    network.nodes[0].input[0] = "pixels"
    planar = "images"
    if layout == "NHWC":
        network.layout, planar = layout, "planar"
        network.nodes.insert(0, node("Transpose", "images", planar, perm=[0, 3, 1, 2]))
    network.nodes.insert(len(network.nodes) - 9, node("Cast", planar, "pixels", to=FLOAT))
    source = save_network(tmp_path / "small.onnx", network, mean=[0] * 3, scale=[1] * 3)
    images = draw_images(32)
    expected = run(source, images)
    made = make(source, "fp32", "native", "scores")
    np.testing.assert_array_equal(run(made, images), expected)
    recipe = load_model_recipe(made)
    assert (recipe.input.dtype, recipe.input.layout) == ("uint8", layout)
    assert (recipe.mean, recipe.scale) == ((0, 0, 0), (1, 1, 1))


def test_two_layers_that_read_the_images_share_what_is_quantised(tmp_path, make):
    network = make_network()
    network.weights["w4"] = np.random.default_rng(6).normal(size=(8, 3, 1, 1)).astype(np.float32)
    network.nodes[3:5] = [node("Conv", "images w4", "c4"), node("Add", "c2 c4", "sum")]
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(64)
    expected = run(make(source, "int8", "uint8", "scores"), images)
    made = make(source, "int8", "native", "scores")
    np.testing.assert_array_equal(run(made, images), expected)
    assert load_model_recipe(made).input.dtype == "int8"


@pytest.mark.parametrize("wanted", FILE_PRECISIONS)
def test_what_a_network_does_itself_to_its_input_stays(tmp_path, make, wanted):
    network = make_network()
    network.weights["shift"] = np.array([0.25], np.float32)
    network.nodes[0].input[0] = "shifted"
    network.nodes.insert(0, node("Sub", "images shift", "shifted"))
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(64)
    expected = run(make(source, wanted, "uint8", "scores"), images)
    made = make(source, wanted, "native", "scores")
    assert_same_answers(made, images, expected, wanted)
    assert list_readers(onnx.load(made), "images") == ["Sub"]
    assert load_model_recipe(made).input.dtype == ("float16" if wanted == "fp16" else "float32")


def test_a_layout_that_something_else_reads_stays(tmp_path, make):
    network = transpose_first(make_network())
    network.nodes[-1].output[0] = "logits"
    network.nodes += [
        node("ReduceMean", "images", "brightness", axes=[1, 2, 3], keepdims=0),
        node("Unsqueeze", "brightness last", "column"),
        node("Add", "logits column", "scores"),
    ]
    network.weights["last"] = np.array([1])
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(32)
    expected = run(make(source, "fp32", "uint8", "scores"), images)
    made = make(source, "fp32", "native", "scores")
    np.testing.assert_array_equal(run(made, images), expected)
    assert load_model_recipe(made).input.layout == "NHWC"
    assert sorted(list_readers(onnx.load(made), "images")) == ["ReduceMean", "Transpose"]


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("uint8", InputSpec("images", "NHWC", "uint8")),
        ("fp32", InputSpec("images", "NHWC", "float32")),
        ("native", InputSpec("images", "NCHW", "float32")),
    ],
)
def test_composing_tells_what_the_input_has_become(tmp_path, kind, spec):
    source = save_network(tmp_path / "small.onnx", transpose_first(make_network()))
    recipe = load_model_recipe(source)
    network = read_network(source, recipe)
    assert compose(source, network, recipe, kind, "class") == spec


@pytest.mark.parametrize("name", ["class", "scores"])
def test_the_output_has_the_name_already(tmp_path, make, name):
    network = make_network(outputs=((name, FLOAT, ["N", CLASSES]),))
    network.nodes[-1].output[0] = name
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(8)
    np.testing.assert_array_equal(
        run(make(source, "fp32", "uint8", "scores"), images), run(source, images)
    )
    assert run(make(source), images).tolist() == run(source, images).argmax(axis=1).tolist()


@pytest.mark.parametrize("axes", [["N", CLASSES, 1, 1], None])
def test_scores_with_more_axes(tmp_path, make, axes):
    network = make_network(outputs=(("scores", FLOAT, axes),))
    network.nodes[-1].output[0] = "flat"
    network.weights["shape"] = np.array([-1, CLASSES, 1, 1])
    network.nodes.append(node("Reshape", "flat shape", "scores"))
    source = save_network(tmp_path / "small.onnx", network, classes=CLASSES)
    images = draw_images(8)
    got = run(make(source, "fp32", "uint8", "scores"), images)
    np.testing.assert_array_equal(got, run(source, images))
    assert run(make(source), images).shape == (8,)


def test_scores_without_an_axis_of_images(tmp_path, make):
    network = make_network(batch=1, outputs=(("scores", FLOAT, [CLASSES]),))
    network.nodes[-1].output[0] = "row"
    network.weights["shape"] = np.array([CLASSES])
    network.nodes.append(node("Reshape", "row shape", "scores"))
    source = save_network(tmp_path / "small.onnx", network, classes=CLASSES)
    with pytest.raises(
        UserError, match=r"output scores has no axis of images: want \[N, classes\]"
    ):
        make(source)


@pytest.mark.parametrize("wanted", FILE_PRECISIONS)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_model_that_gives_the_class(tmp_path, make, wanted, keepdims):
    shape = ["N", 1] if keepdims else ["N"]
    network = make_network(outputs=(("best", TensorProto.INT64, shape),))
    network.nodes.append(node("ArgMax", "scores", "best", axis=1, keepdims=keepdims))
    source = save_network(tmp_path / "small.onnx", network, classes=CLASSES)
    images = draw_images(32)
    got = run(make(source, wanted), images)
    assert (got.dtype, got.shape) == (np.int32, (32,))
    assert (got == run(source, images).ravel()).mean() >= 0.9
    with pytest.raises(UserError, match="there are no scores"):
        make(source, wanted, "uint8", "scores")


@pytest.mark.parametrize("wanted", FILE_PRECISIONS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_model_that_takes_uint8(tmp_path, make, wanted, layout):
    network = make_network(layout=layout, dtype=TensorProto.UINT8)
    network.weights["mean"] = np.array(MEAN, np.float32)[:, None, None]
    network.weights["divisor"] = np.array([60], np.float32)
    before = [
        node("Cast", "images", "pixels", to=FLOAT),
        node("Transpose", "pixels", "planar", perm=[0, 3, 1, 2]),
        node("Sub", "planar mean", "centred"),
        node("Div", "centred divisor", "scaled"),
    ]
    if layout == "NCHW":
        del before[1]
        before[1].input[0] = "pixels"
    network.nodes[0].input[0] = "scaled"
    network.nodes[:0] = before
    source = save_network(tmp_path / "small.onnx", network, mean=[0] * 3, scale=[1] * 3)
    images = draw_images(32)
    made = make(source, wanted)
    assert (run(made, images) == run(source, images).argmax(axis=1)).mean() >= 0.9
    assert load_model_recipe(made).input.layout == "NHWC"
    with pytest.raises(UserError, match="takes uint8 images: it has no float input"):
        make(source, wanted, "fp32")
