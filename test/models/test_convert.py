from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file
from ck_mlperf.images.preprocess import PreprocessedSet, preprocess
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.models import compose, convert, precision
from ck_mlperf.models.convert import convert as convert_file
from ck_mlperf.models.recipe import InputSpec, load_model_recipe, normalise

pytestmark = pytest.mark.slow  # nothing in it depends on the version of Python

SIDE, CLASSES = 8, 10
MEAN, SCALE = [120.0, 110.0, 100.0], [0.02, 0.01, 0.015]
PRECISIONS = ("fp32", "fp16", "int8")
FLOAT = TensorProto.FLOAT


@dataclasses.dataclass
class Network:
    """What a small model is made of; `save_network` writes it."""

    nodes: list[onnx.NodeProto]
    weights: dict[str, np.ndarray]
    input: str = "images"
    outputs: tuple[tuple[str, int, list[Any]], ...] = (("scores", FLOAT, ["N", CLASSES]),)
    layout: str = "NCHW"
    dtype: int = FLOAT
    batch: int | str = "N"
    opset: int = 13
    ir: int = 8
    weights_are_inputs: bool = False


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def make_network(**changes: Any) -> Network:
    """Two convolutions with a way around, batch norm, Gemm: what classifiers are made of."""
    random = np.random.default_rng(1)

    def draw(*shape: int) -> np.ndarray:
        values = random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        return values.astype(np.float32)

    weights = {
        "w1": draw(8, 3, 3, 3),
        "b1": draw(8),
        "w2": draw(8, 8, 3, 3),
        "gamma": 1 + draw(8) / 10,
        "beta": draw(8),
        "running_mean": draw(8),
        "running_variance": 1 + draw(8) ** 2,
        "w3": draw(CLASSES, 8),
        "b3": draw(CLASSES),
    }
    nodes = [
        node("Conv", "images w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c2 gamma beta running_mean running_variance", "n2"),
        node("Add", "n2 r1", "sum"),
        node("Relu", "sum", "r2"),
        node("GlobalAveragePool", "r2", "pooled"),
        node("Flatten", "pooled", "features"),
        node("Gemm", "features w3 b3", "scores", transB=1),
    ]
    return dataclasses.replace(Network(nodes, weights), **changes)


def save_network(path: Path, network: Network, **recipe: Any) -> Path:
    sizes = [3, SIDE, SIDE] if network.layout == "NCHW" else [SIDE, SIDE, 3]
    inputs = [helper.make_tensor_value_info(network.input, network.dtype, [network.batch, *sizes])]
    tensors = [numpy_helper.from_array(array, name) for name, array in network.weights.items()]
    if network.weights_are_inputs:
        inputs += [
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in tensors
        ]
    outputs = [helper.make_tensor_value_info(*output) for output in network.outputs]
    model = helper.make_model(
        helper.make_graph(network.nodes, "small", inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid("", network.opset)],
        ir_version=network.ir,
    )
    path.write_bytes(model.SerializeToString())
    write_recipe(path, **recipe)
    return path


def write_recipe(path: Path, **changes: Any) -> None:
    data = {
        "dataset": "digits",
        "image": {"crop": 1.0, "interpolation": "area", "channels": "rgb"},
        "mean": MEAN,
        "scale": SCALE,
    }
    path.with_suffix(".json").write_text(json.dumps(data | changes))


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """The output that the recipe of `path` names, for uint8 images; scores as [n, classes]."""
    onnxruntime = pytest.importorskip("onnxruntime")
    recipe = load_model_recipe(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    tensor = normalise(images, recipe)
    step = recipe.max_batch or len(tensor)
    parts = [
        session.run([recipe.output.name], {recipe.input.name: tensor[at : at + step]})[0]
        for at in range(0, len(tensor), step)
    ]
    result = np.concatenate(parts)
    return result if recipe.output.kind == "class" else result.reshape(len(images), -1)


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


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(one.op_type for one in model.graph.node)


def draw_images(count: int, seed: int = 3, side: int = SIDE) -> np.ndarray:
    """Blots rather than noise: noise looks the same to every network."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    return coarse.repeat(side // 2, axis=1).repeat(side // 2, axis=2)


@pytest.fixture(scope="session")
def make_calibration(tmp_path_factory) -> Callable[..., Path]:
    """`make_calibration(side=8, crop=1.0)`: the folder of a set of 16 preprocessed images."""
    cv2 = pytest.importorskip("cv2")
    made: dict[ImageRecipe, Path] = {}

    def make(**image: Any) -> Path:
        recipe = ImageRecipe(**({"side": SIDE, "crop": 1.0} | image))
        if recipe not in made:
            folder = tmp_path_factory.mktemp("calibration")
            source = folder / "images"
            source.mkdir()
            for number, pixels in enumerate(draw_images(16, seed=4)):
                assert cv2.imwrite(str(source / f"{number:02}.png"), pixels)
            lines = [f"{number:02}.png 0\n" for number in range(16)]
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
        made = convert_file(source, output, wanted, *kinds, **options)
        check(output)
        assert load_model_recipe(output) == made
        return output

    return convert_it


@pytest.fixture
def source(tmp_path) -> Path:
    return save_network(tmp_path / "small.onnx", make_network())


# ---- what goes in and what comes out


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


@pytest.mark.parametrize("wanted", PRECISIONS)
@pytest.mark.parametrize("input_kind", ["uint8", "fp32"])
@pytest.mark.parametrize("output_kind", ["class", "scores"])
def test_every_variation(source, make, wanted, input_kind, output_kind):
    images = draw_images(64)
    expected = run(source, images)
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


def test_the_recipe_of_the_result(source, make, calibration):
    made = make(source, "int8", calibration_count=9)
    recipe = json.loads(made.with_suffix(".json").read_text())
    conversion = recipe.pop("conversion")
    assert recipe == {
        "format": 1,
        "name": "small",
        "dataset": "digits",
        "input": {"name": "images", "layout": "NHWC", "dtype": "uint8"},
        "image": ImageRecipe(SIDE, 1.0).to_dict(),
        "mean": [0, 0, 0],
        "scale": [1, 1, 1],
        "output": {"name": "class", "kind": "class"},
        "classes": CLASSES,
        "labels_offset": 0,
        "max_batch": None,
        "weights": "trained",
    }
    libraries = conversion.pop("libraries")
    assert libraries["onnx"] == onnx.__version__
    assert set(libraries) == {"onnx", "onnxruntime"}
    manifest = json.loads((calibration / "manifest.json").read_text())
    assert conversion == {
        "source_sha256": hash_file(source),
        "precision": "int8",
        "input": "uint8",
        "output": "class",
        "calibration": {
            "images_sha256": manifest["images_sha256"],
            "count": 9,
            "method": precision.CALIBRATION_METHOD,
        },
    }


def test_the_model_keeps_its_own_input(source, make):
    recipe = load_model_recipe(make(source, "fp16", "fp32", "scores"))
    original = load_model_recipe(source)
    assert (recipe.input, recipe.mean, recipe.scale) == (
        original.input,
        original.mean,
        original.scale,
    )
    assert recipe.conversion is not None
    assert recipe.conversion["calibration"] is None


# ---- the input that the first layer computes in

NATIVE = {
    "fp32": ("float32", FLOAT),
    "fp16": ("float16", TensorProto.FLOAT16),
    "int8": ("int8", TensorProto.INT8),
}


def transpose_first(network: Network) -> Network:
    """The same network for NHWC."""
    network.nodes[0].input[0] = "planar"
    network.nodes.insert(0, node("Transpose", "images", "planar", perm=[0, 3, 1, 2]))
    return dataclasses.replace(network, layout="NHWC")


def assert_same_answers(made: Path, images: np.ndarray, expected: np.ndarray, wanted: str) -> None:
    """To the bit, but for float16, which ONNX Runtime computes in float32 on a CPU: it does not
    round to float16 what it has itself made, and `normalise` does."""
    tolerance = 1e-3 if wanted == "fp16" else 0
    np.testing.assert_allclose(run(made, images), expected, rtol=0, atol=tolerance)


def list_readers(model: onnx.ModelProto, tensor: str) -> list[str]:
    return [one.op_type for one in model.graph.node if tensor in one.input]


@pytest.mark.parametrize("wanted", PRECISIONS)
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


@pytest.mark.parametrize("wanted", PRECISIONS)
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
    network = compose.read_network(source, recipe)
    assert compose.compose(source, network, recipe, kind, "class") == spec


# ---- models as they come


@pytest.mark.parametrize("wanted", PRECISIONS)
def test_a_model_may_use_any_names(tmp_path, make, wanted):
    """Those of the result, and those that are made on the way."""
    network = make_network()
    names = {
        "images": "class",
        "scores": "scores",
        "w1": "preprocess.cast",
        "b1": "preprocess.mean",
        "c1": "class.network",
        "r1": "x",
        "w2": "x.scale",
        "c2": "x_scale",
        "n2": "x.int8",
        "sum": "x_cast_to_fp32",
        "r2": "pooled",
        "pooled": "pooled_cast_to_fp16",
        "w3": "answer.argmax",
        "b3": "graph_input_cast_0",
    }
    for one in network.nodes:
        one.input[:] = [names.get(name, name) for name in one.input]
        one.output[:] = [names.get(name, name) for name in one.output]
    network.weights = {names.get(name, name): value for name, value in network.weights.items()}
    network.input = "class"
    # LRN stays in float32: casts around it.
    network.nodes[5:6] = [node("LRN", "x_cast_to_fp32", "pooled", size=3)]
    source = save_network(tmp_path / "small.onnx", network)
    made = make(source, wanted)
    images = draw_images(64)
    assert (run(made, images) == run(source, images).argmax(axis=1)).mean() >= 0.9
    assert load_model_recipe(made).output.name == "class"


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


@pytest.mark.parametrize(("opset", "ir"), [(7, 3), (13, 8), (17, 9), (21, 10)])
def test_opset_and_ir_version_are_the_sources(tmp_path, make, opset, ir):
    """ONNX before IR 4 lists weights as inputs too."""
    network = make_network(opset=opset, ir=ir, weights_are_inputs=ir < 4)
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(16)
    expected = run(source, images).argmax(axis=1)
    for wanted in PRECISIONS:
        made = make(source, wanted)
        model = onnx.load(made)
        least = 13 if wanted == "int8" else opset
        assert model.opset_import[0].version == max(opset, least)
        assert model.ir_version == max(ir, 7 if least > opset else 4)
        assert (run(made, images) == expected).mean() >= 0.9


def test_an_opset_that_is_too_old(tmp_path, make):
    network = make_network(opset=6, ir=3, weights_are_inputs=True)
    network.nodes[8].attribute.append(helper.make_attribute("broadcast", 1))
    source = save_network(tmp_path / "small.onnx", network)
    with pytest.raises(UserError, match="is in opset 6: too old"):
        make(source)


@pytest.mark.parametrize("batch", ["N", 4])
def test_a_softmax_that_meant_something_else(tmp_path, make, batch):
    """Before opset 13 it worked on all axes from its own on: here on the classes."""
    network = make_network(opset=11, batch=batch)
    network.outputs = (("scores", FLOAT, [batch, CLASSES, 1, 1]),)
    network.weights["shape"] = np.array([-1, CLASSES, 1, 1])
    network.nodes[-1].output[0] = "logits"
    network.nodes += [
        node("Reshape", "logits shape", "four"),
        node("Softmax", "four", "scores", axis=1),
    ]
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(16)
    for wanted in PRECISIONS:
        got = run(make(source, wanted, "uint8", "scores"), images)
        assert np.abs(got - run(source, images)).max() < 0.05


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


def test_other_outputs_are_dropped_with_what_leads_to_them(tmp_path, make):
    network = make_network(
        outputs=(("second", FLOAT, ["N", 8, SIDE, SIDE]), ("scores", FLOAT, ["N", CLASSES]))
    )
    network.weights["w9"] = np.ones((8, 8, 1, 1), np.float32)
    network.nodes.append(node("Conv", "r1 w9", "second"))
    source = save_network(tmp_path / "small.onnx", network)
    write_recipe(source, output={"name": "scores"})
    assert kinds(onnx.load(make(source)))["Conv"] == 2


@pytest.mark.parametrize("wanted", PRECISIONS)
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


@pytest.mark.parametrize("wanted", PRECISIONS)
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


@pytest.mark.parametrize("wanted", PRECISIONS)
def test_a_model_in_float16(tmp_path, make, wanted):
    network = make_network(
        dtype=TensorProto.FLOAT16, outputs=(("scores", TensorProto.FLOAT16, ["N", CLASSES]),)
    )
    network.weights = {name: value.astype(np.float16) for name, value in network.weights.items()}
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(64)
    expected = run(source, images).astype(np.float32)
    made = make(source, wanted, "fp32", "scores")
    assert load_model_recipe(made).input.dtype == "float32"
    assert np.abs(run(made, images) - expected).max() <= 0.1 * np.abs(expected).max()
    assert (run(make(source, wanted), images) == expected.argmax(axis=1)).mean() >= 0.9
    types = {tensor.data_type for tensor in onnx.load(made).graph.initializer}
    assert (TensorProto.FLOAT16 in types) == (wanted == "fp16")


def test_weights_in_another_file_come_along(tmp_path, make, source):
    model = onnx.load(source)
    images = draw_images(8)
    expected = run(source, images).argmax(axis=1)
    onnx.save(model, source, save_as_external_data=True, location="small.bin", size_threshold=0)
    made = make(source)
    (tmp_path / "small.bin").unlink()
    assert run(made, images).tolist() == expected.tolist()


def test_a_model_too_large_for_one_file(source, make, monkeypatch):
    monkeypatch.setattr(compose, "MAX_BYTES", source.stat().st_size - 1)
    with pytest.raises(UserError, match=r"one ONNX file holds less than 2 GiB"):
        make(source)


def test_functions_are_written_out(tmp_path, make, source):
    model = onnx.load(source)
    model.functions.append(
        helper.make_function(
            "local", "Twice", ["x"], ["y"], [node("Add", "x x", "y")], model.opset_import
        )
    )
    model.graph.node[-1].output[0] = "once"
    model.graph.node.append(helper.make_node("Twice", ["once"], ["scores"], domain="local"))
    model.opset_import.append(helper.make_opsetid("local", 1))
    source.write_bytes(model.SerializeToString())
    images = draw_images(8)
    got = run(make(source, "fp32", "uint8", "scores"), images)
    np.testing.assert_array_equal(got, run(source, images))


@pytest.mark.parametrize("wanted", PRECISIONS)
def test_a_graph_inside_a_node(tmp_path, make, wanted):
    """It reads tensors of the graph around it, which must stay and keep pace with its names."""
    network = make_network()
    network.nodes[-1].output[0] = "class"
    value = helper.make_tensor_value_info
    branches = [
        helper.make_graph(
            [node(kind, "class", f"inner{kind}")],
            kind,
            [],
            [value(f"inner{kind}", FLOAT, ["N", CLASSES])],
        )
        for kind in ("Identity", "Neg")
    ]
    network.weights["yes"] = np.array(True)
    network.nodes.append(
        node("If", "yes", "scores", then_branch=branches[0], else_branch=branches[1])
    )
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(16)
    assert (run(make(source, wanted), images) == run(source, images).argmax(axis=1)).mean() > 0.8


# ---- float16


def test_float16_is_what_is_computed(source, make):
    model = onnx.load(make(source, "fp16"))
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    for one in model.graph.node:
        if one.op_type in ("Conv", "Gemm", "Add", "Relu"):
            assert types[one.output[0]] == TensorProto.FLOAT16, one.name
        if one.op_type in ("Sub", "Mul"):
            assert types[one.output[0]] == FLOAT, one.name
        if one.op_type == "ArgMax":
            assert types[one.input[0]] == FLOAT
    assert kinds(model)["BatchNormalization"] == 0


def test_softmax_keeps_float32_up_to_the_argmax(tmp_path, make):
    network = make_network()
    network.nodes[-1].output[0] = "logits"
    network.nodes.append(node("Softmax", "logits", "scores", axis=1))
    model = onnx.load(make(save_network(tmp_path / "small.onnx", network), "fp16"))
    producers = {name: one for one in model.graph.node for name in one.output}
    (argmax,) = (one for one in model.graph.node if one.op_type == "ArgMax")
    assert producers[argmax.input[0]].op_type == "Softmax"


def test_a_layer_beyond_float16_is_refused(tmp_path, make):
    network = make_network()
    network.weights["w2"][0, 0, 0, 0] = 1e6
    source = save_network(tmp_path / "small.onnx", network)
    with pytest.raises(UserError, match=r"Conv .* has weights beyond 65504"):
        make(source, "fp16")


def test_a_constant_beyond_float16_stays_in_float32(tmp_path, make):
    network = make_network()
    network.weights["large"] = np.array([1e6], np.float32)
    network.nodes[5:6] = [
        node("Mul", "sum large", "millions"),
        node("Div", "millions large", "again"),
        node("Relu", "again", "r2"),
    ]
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(64)
    made = make(source, "fp16", "uint8", "scores")
    expected = run(source, images)
    assert np.abs(run(made, images) - expected).max() <= 5e-3 * np.abs(expected).max()
    constants = [numpy_helper.to_array(tensor) for tensor in onnx.load(made).graph.initializer]
    assert max(float(np.abs(array).max()) for array in constants) == 1e6


@pytest.mark.parametrize("wanted", ["fp16", "int8"])
def test_what_an_engine_that_chooses_types_keeps_in_float32(tmp_path, make, wanted):
    """Sums and exponentials; not what has int8 to read, and nothing that computes in float16."""
    network = make_network()
    network.nodes[-1].output[0] = "logits"
    network.nodes.append(node("Softmax", "logits", "scores", axis=1))
    network.weights["axes"] = np.array([2, 3])
    network.nodes[6] = node("ReduceMean", "r2", "pooled", axes=[2, 3])
    model = onnx.load(make(save_network(tmp_path / "small.onnx", network), wanted))
    names = set(precision.list_float32_nodes(model))
    by_name = {one.name: one.op_type for one in model.graph.node}
    named = {by_name[name] for name in names}
    assert "Softmax" in named
    assert not named & {"Conv", "Gemm", "Relu", "Add", "Cast", "QuantizeLinear", "ArgMax"}
    # ReduceMean sums, which a float16 file leaves to float32; in an int8 file it reads int8.
    assert ("ReduceMean" in named) == (wanted == "fp16")


def test_what_is_beyond_float16_is_kept_in_float32_by_every_engine(tmp_path, make):
    network = make_network()
    network.weights["large"] = np.array([1e6], np.float32)
    network.nodes[5:6] = [
        node("Mul", "sum large", "millions"),
        node("Div", "millions large", "again"),
        node("Relu", "again", "r2"),
    ]
    source = save_network(tmp_path / "small.onnx", network)
    model = onnx.load(make(source, "fp16", "native"))
    names = precision.list_float32_nodes(model)
    (mul,) = (one.name for one in model.graph.node if one.op_type == "Mul")
    assert mul in names


# ---- int8


def read_quantisation(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The QuantizeLinear nodes by the tensors that they read, each checked with its other half."""
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for one in model.graph.node:
        for name in one.input:
            readers.setdefault(name, []).append(one)
    found = {}
    for one in model.graph.node:
        if one.op_type == "QuantizeLinear":
            found[one.input[0]] = one
            (back,) = readers[one.output[0]]
            assert back.op_type == "DequantizeLinear"
            assert back.input[1:] == one.input[1:]
            assert back.attribute == one.attribute
            zero = constants[one.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
            assert constants[one.input[1]].min() > 0
    assert len(found) == kinds(model)["QuantizeLinear"] == kinds(model)["DequantizeLinear"]
    return found


def test_what_is_quantised(source, make):
    model = onnx.load(make(source, "int8"))
    pairs = read_quantisation(model)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    producers = {name: one for one in model.graph.node for name in one.output}
    heavy = [one for one in model.graph.node if one.op_type in ("Conv", "Gemm")]
    assert len(heavy) == 3
    for one in heavy:
        for name in one.input[:2]:
            assert producers[name].op_type == "DequantizeLinear", one.name
        weights = producers[producers[one.input[1]].input[0]]
        assert constants[weights.input[0]].dtype == np.float32
        channels = constants[weights.input[0]].shape[0]
        assert constants[weights.input[1]].shape == (channels,)
        assert [attribute.i for attribute in weights.attribute] == [0]
        assert constants[one.input[2]].dtype == np.float32
    # r1 is read by a convolution and by the Add: one pair serves both.
    (add,) = (one for one in model.graph.node if one.op_type == "Add")
    quantised = [producers[name].op_type == "DequantizeLinear" for name in add.input]
    assert sorted(quantised) == [False, True]
    activations = [name for name in pairs if name not in constants]
    assert activations == ["images.network", "r1", "r2", "features"]
    assert kinds(model)["BatchNormalization"] == 0


@pytest.mark.parametrize("pooling", ["AveragePool", "GlobalAveragePool", "ReduceMean"])
def test_pooling_reads_int8(tmp_path, make, pooling):
    """Else the layer before it would write float32 for nobody but it."""
    attributes: dict[str, Any] = {
        "AveragePool": {"kernel_shape": [SIDE, SIDE]},
        "ReduceMean": {"axes": [2, 3]},
    }.get(pooling, {})
    network = make_network()
    network.nodes[6] = node(pooling, "r2", "pooled", **attributes)
    source = save_network(tmp_path / "small.onnx", network)
    made = make(source, "int8", "uint8", "scores")
    model = onnx.load(made)
    read_quantisation(model)
    producers = {name: one for one in model.graph.node for name in one.output}
    (pool,) = (one for one in model.graph.node if one.op_type == pooling)
    assert producers[pool.input[0]].op_type == "DequantizeLinear"
    images = draw_images(64)
    expected = run(source, images)
    assert np.abs(run(made, images) - expected).max() <= 0.1 * np.abs(expected).max()


def test_pooling_of_the_images_themselves_is_left_alone(tmp_path, make):
    network = make_network()
    network.nodes[0].input[0] = "smaller"
    network.nodes.insert(0, node("AveragePool", "images", "smaller", kernel_shape=[2, 2]))
    made = make(save_network(tmp_path / "small.onnx", network), "int8", "native")
    assert list_readers(onnx.load(made), "images") == ["AveragePool"]
    assert load_model_recipe(made).input.dtype == "float32"


def test_a_block_whose_way_around_is_a_convolution(tmp_path, make):
    network = make_network()
    network.weights["w4"] = np.random.default_rng(5).normal(size=(8, 8, 1, 1)).astype(np.float32)
    network.nodes[3:5] = [node("Conv", "r1 w4", "c4"), node("Add", "c2 c4", "sum")]
    model = onnx.load(make(save_network(tmp_path / "small.onnx", network), "int8"))
    producers = {name: one for one in model.graph.node for name in one.output}
    (add,) = (one for one in model.graph.node if one.op_type == "Add")
    inputs = sorted(producers[name].op_type for name in add.input)
    assert inputs == ["Conv", "DequantizeLinear"]
    read_quantisation(model)


def test_a_matmul_with_its_bias_added(tmp_path, make):
    network = make_network()
    network.weights["w3"] = network.weights["w3"].T.copy()
    network.nodes[-1:] = [node("MatMul", "features w3", "m"), node("Add", "m b3", "scores")]
    source = save_network(tmp_path / "small.onnx", network)
    made = make(source, "int8", "uint8", "scores")
    images = draw_images(64)
    expected = run(source, images)
    assert np.abs(run(made, images) - expected).max() <= 0.1 * np.abs(expected).max()
    read_quantisation(onnx.load(made))


@pytest.mark.parametrize("attributes", [{"beta": 3.0}, {"alpha": 0.5}, {"transB": 0}])
def test_a_gemm_of_any_kind(tmp_path, make, attributes):
    network = make_network()
    transposed = attributes.get("transB", 1)
    network.nodes[-1:] = [
        node("Gemm", "features w3 b3", "scores", **{"transB": transposed, **attributes})
    ]
    if not transposed:
        network.weights["w3"] = network.weights["w3"].T.copy()
    source = save_network(tmp_path / "small.onnx", network)
    made = make(source, "int8", "uint8", "scores")
    images = draw_images(64)
    expected = run(source, images)
    assert np.abs(run(made, images) - expected).max() <= 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("weight", [0.0, 1e-12])
def test_a_dead_channel_does_no_harm(tmp_path, make, weight):
    """ONNX Runtime keeps biases as int32: beside weights of next to nothing they would overflow."""
    network = make_network()
    network.weights["w1"][2] = weight
    network.weights["b1"][2] = 1.5
    source = save_network(tmp_path / "small.onnx", network)
    made = make(source, "int8", "uint8", "scores")
    images = draw_images(64)
    expected = run(source, images)
    assert np.abs(run(made, images) - expected).max() <= 0.1 * np.abs(expected).max()


def test_the_bias_takes_off_what_rounding_adds(tmp_path, make, calibration, monkeypatch):
    """Mean scores over the calibration images: with the correction nearer to those of float32."""
    network = make_network()
    # One large weight a channel: the others are rounded roughly, all in one direction.
    network.weights["w3"] = np.abs(network.weights["w3"]) % 0.003 + 0.0017
    network.weights["w3"][:, 0] = 1.0
    source = save_network(tmp_path / "small.onnx", network)
    images = np.load(calibration / "images.npy")
    expected = run(source, images).mean(axis=0)
    errors = []
    for _ in range(2):
        got = run(make(source, "int8", "uint8", "scores"), images).mean(axis=0)
        errors.append(np.abs(got - expected).mean())
        monkeypatch.setattr(precision, "_mean_output", lambda *_: None)
    assert errors[0] < 0.5 * errors[1]


def test_nothing_to_quantise(tmp_path, make):
    network = make_network(
        nodes=[
            node("GlobalAveragePool", "images", "pooled"),
            node("Flatten", "pooled", "features"),
            node("Mul", "features factor", "three"),
            node("Concat", "three three three features", "scores", axis=1),
        ],
        weights={"factor": np.array([2], np.float32)},
        outputs=(("scores", FLOAT, ["N", 12]),),
    )
    source = save_network(tmp_path / "small.onnx", network, weights="random")
    with pytest.raises(UserError, match="nothing to quantise"):
        make(source, "int8")


def test_a_value_that_is_infinite(tmp_path, make):
    network = make_network()
    network.weights["zero"] = np.array([0], np.float32)
    network.nodes[1:2] = [node("Div", "c1 zero", "r1")]
    source = save_network(tmp_path / "small.onnx", network)
    with pytest.raises(UserError, match="r1 is infinite, or no number"):
        make(source, "int8")


# ---- calibration is never made up


def test_int8_without_images(source, make):
    with pytest.raises(UserError, match=r"calibration needs images of digits, .* --calibration"):
        make(source, "int8", calibration=None)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ({"crop": 0.875}, "crop is 0.875, not 1.0"),
        ({"channels": "bgr"}, "channels is 'bgr', not 'rgb'"),
        ({"side": 16}, "side is 16, not 8"),
    ],
)
def test_images_of_another_recipe(source, make, make_calibration, image, told):
    with pytest.raises(UserError, match=rf"calibration needs .* another set: {told}"):
        make(source, "int8", calibration=make_calibration(**image))


def test_images_of_another_data_set(source, make, calibration):
    write_recipe(source, dataset="imagenet", weights="random")
    with pytest.raises(UserError, match="dataset is 'digits', not 'imagenet'"):
        make(source, "int8")


def test_a_folder_that_is_no_set(source, make, tmp_path):
    with pytest.raises(UserError, match=r"calibration needs .* no finished preprocessed data set"):
        make(source, "int8", calibration=tmp_path)


def test_a_set_whose_pixels_have_changed(source, make, calibration, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for path in calibration.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    content = bytearray((folder / "images.npy").read_bytes())
    content[-1] ^= 1
    (folder / "images.npy").write_bytes(content)
    with pytest.raises(UserError, match="its pixels have changed"):
        make(source, "int8", calibration=folder)


def test_an_empty_set(source, make, calibration, monkeypatch):
    real = load_empty(calibration)
    monkeypatch.setattr("ck_mlperf.images.preprocess.load_preprocessed", lambda *_, **__: real)
    with pytest.raises(UserError, match="another set: it is empty"):
        make(source, "int8")


def load_empty(folder: Path) -> PreprocessedSet:
    from ck_mlperf.images.preprocess import load_preprocessed

    found = load_preprocessed(folder)
    return dataclasses.replace(found, images=found.images[:0], names=[])


@pytest.mark.parametrize("count", [0, -1, 17])
def test_a_count_that_the_set_does_not_have(source, make, count):
    with pytest.raises(UserError, match=rf"1 to 16 images, which .* has, not {count}"):
        make(source, "int8", calibration_count=count)


@pytest.mark.parametrize("option", ["calibration", "calibration_count"])
def test_calibration_is_for_int8(source, make, option):
    with pytest.raises(UserError, match="calibration is for int8, not for fp16"):
        make(source, "fp16", **{option: {"calibration": source.parent}.get(option, 3)})


# ---- what is refused


def test_a_converted_file_is_not_converted_again(source, make, tmp_path):
    made = make(source)
    with pytest.raises(UserError, match=rf"converted file itself.*{hash_file(source)}"):
        convert_file(made, tmp_path / "again.onnx", "fp32")


def test_operators_of_an_engine(source, make):
    model = onnx.load(source)
    model.graph.node[1].op_type, model.graph.node[1].domain = "Gelu", "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    source.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"not ONNX's own \(com\.microsoft\.Gelu\)"):
        make(source)


@pytest.mark.parametrize("wanted", PRECISIONS)
def test_a_quantised_source(source, make, tmp_path, wanted):
    made = make(source, "int8", "fp32", "scores")
    again = tmp_path / "quantised.onnx"
    again.write_bytes(made.read_bytes())
    write_recipe(again)
    with pytest.raises(UserError, match=r"quantised already .* Give the float model"):
        make(again, wanted)


def test_shapes_that_contradict_each_other(tmp_path, make):
    network = make_network(outputs=(("scores", FLOAT, ["N", CLASSES + 1]),))
    source = save_network(tmp_path / "small.onnx", network, weights="random")
    with pytest.raises(UserError, match="cannot be converted, its shapes contradict each other"):
        make(source, "fp32", "uint8", "scores")


def test_what_onnx_runtime_cannot_read(tmp_path, make):
    network = make_network()
    network.nodes[1] = node("Relu", "c1 c1", "r1")
    source = save_network(tmp_path / "small.onnx", network)
    with pytest.raises(UserError, match=r"small\.onnx: ONNX Runtime cannot open it"):
        make(source, "fp16")


@pytest.mark.parametrize(
    ("name", "told"), [("small.onnx", "cannot be the source"), ("small.plan", r"ends in \.onnx")]
)
def test_a_bad_name_for_the_output(source, name, told):
    with pytest.raises(UserError, match=told):
        convert_file(source, source.parent / name, "fp32")


# ---- files


@pytest.mark.parametrize("wanted", PRECISIONS)
def test_the_same_again_is_the_same_to_the_byte(
    source, tmp_path, calibration, library_environment, wanted
):
    """Also in another process, which hashes names in another way."""
    digests = set()
    for seed in ("1", "2"):
        output = tmp_path / f"{seed}.onnx"
        options = ["--calibration", calibration] if wanted == "int8" else []
        subprocess.run(
            [
                *(sys.executable, "-m", "ck_mlperf.models.convert", "--source", source),
                *("--output", output, "--precision", wanted, *options),
            ],
            env=library_environment | {"PYTHONHASHSEED": seed},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        digests.add(hashlib.sha256(output.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("cut_off_at", ["model.json", "model.onnx"])
def test_an_interrupted_conversion_leaves_no_model(source, tmp_path, monkeypatch, cut_off_at):
    """The recipe goes first, and an earlier model goes before it: none has another's recipe."""
    output = tmp_path / "made" / "model.onnx"
    convert_file(source, output, "fp32")
    real = convert.write_file

    def write(path: Path, data: str | bytes) -> None:
        if path.name == cut_off_at:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(convert, "write_file", write)
    with pytest.raises(KeyboardInterrupt):
        convert_file(source, output, "fp16")
    assert [path.name for path in output.parent.iterdir()] == ["model.json"]


def test_a_refused_conversion_touches_nothing(source, tmp_path):
    output = tmp_path / "made" / "model.onnx"
    convert_file(source, output, "fp32")
    before = {path.name: path.read_bytes() for path in output.parent.iterdir()}
    with pytest.raises(UserError):
        convert_file(source, output, "int8")
    assert {path.name: path.read_bytes() for path in output.parent.iterdir()} == before


# ---- the command, and the network that lies in the repository


def test_the_command_is_quiet_without_a_terminal(source, tmp_path, calibration, run_module):
    output = tmp_path / "new" / "model.onnx"
    done = run_module(
        *("models.convert", "--source", source, "--output", output, "--precision", "int8"),
        *("--calibration", calibration, "--calibration-count", 4),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{output}: small in int8, uint8 in, class out\n"
    assert sorted(path.name for path in output.parent.iterdir()) == ["model.json", "model.onnx"]


def test_the_command_makes_native_input(source, tmp_path, calibration, run_module):
    output = tmp_path / "model.onnx"
    done = run_module(
        *("models.convert", "--source", source, "--output", output, "--precision", "int8"),
        *("--input", "native", "--calibration", calibration),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{output}: small in int8, int8 in, class out\n"
    described = json.loads(output.with_suffix(".json").read_text())["input"]
    assert described == load_model_recipe(output).to_dict()["input"]
    assert described["step"] > 0


def test_the_command_refuses_with_one_message(source, tmp_path, run_module):
    done = run_module(
        "models.convert",
        "--source",
        source,
        "--output",
        tmp_path / "new.onnx",
        "--precision",
        "int8",
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: int8: calibration needs")
    assert not (tmp_path / "new.onnx").exists()


@pytest.fixture(scope="session")
def digits(repository, tmp_path_factory) -> tuple[Path, PreprocessedSet]:
    """The digits network, and the images that it was not trained on."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("digits")
    script = repository / "package" / "dataset-digits" / "make_digits.py"
    helper_path = str(repository / "src")
    subprocess.run(
        [sys.executable, script, folder / "images"],
        check=True,
        env=os.environ | {"PYTHONPATH": helper_path},
    )
    network = repository / "package" / "model-onnx-digits" / "digits.onnx"
    recipe = load_model_recipe(network)
    found = preprocess(folder / "images", folder / "set", recipe.image, dataset="digits")
    return network, found


@pytest.mark.parametrize(("wanted", "least"), [("fp32", 1.0), ("fp16", 0.995), ("int8", 0.99)])
def test_digits(digits, tmp_path, wanted, least):
    network, held_out = digits
    output = tmp_path / "digits.onnx"
    folder = Path(held_out.images.filename).parent
    made = convert_file(
        network,
        output,
        wanted,
        calibration=folder if wanted == "int8" else None,
        calibration_count=50 if wanted == "int8" else None,
    )
    check(output)
    assert made.name == "digits"
    expected, got = run(network, held_out.images).argmax(axis=1), run(output, held_out.images)
    assert (got == expected).mean() >= least


def test_constant_names_are_new() -> None:
    graph = helper.make_graph([node("Relu", "x", "x.2", name="x.3")], "g", [], [])
    names = compose.Names(graph)
    assert [names.new("x"), names.new("x"), names.new("y")] == ["x.4", "x.5", "y"]


def test_nodes_are_sorted_and_otherwise_left_as_they_are() -> None:
    order = ["a b", "x a", "in x", "b c"]
    nodes = [node("Relu", *step.split()) for step in order]
    graph = helper.make_graph(nodes, "g", [], [])
    compose.sort_nodes(graph)
    assert [one.input[0] for one in graph.node] == ["in", "x", "a", "b"]
