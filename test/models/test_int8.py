"""int8: what is quantised, and how well."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ck_mlperf.common.errors import UserError
from ck_mlperf.models.recipe import load_model_recipe

from ..builders.networks import (
    CLASSES,
    FLOAT,
    SIDE,
    draw_images,
    kinds,
    list_readers,
    make_network,
    node,
    run,
    save_network,
)

pytestmark = pytest.mark.slow  # nothing in it depends on the version of Python


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


def test_a_block_whose_skip_connection_is_a_convolution(tmp_path, make):
    network = make_network()
    network.weights["w4"] = np.random.default_rng(5).normal(size=(8, 8, 1, 1)).astype(np.float32)
    network.nodes[3:5] = [node("Conv", "r1 w4", "c4"), node("Add", "c2 c4", "sum")]
    model = onnx.load(make(save_network(tmp_path / "small.onnx", network), "int8"))
    producers = {name: one for one in model.graph.node for name in one.output}
    (add,) = (one for one in model.graph.node if one.op_type == "Add")
    inputs = sorted(producers[name].op_type for name in add.input)
    assert inputs == ["Conv", "DequantizeLinear"]
    read_quantisation(model)


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_matmul(tmp_path, make, has_bias):
    network = make_network()
    network.weights["w3"] = network.weights["w3"].T.copy()
    network.nodes[-1:] = [node("MatMul", "features w3", "scores")]
    if has_bias:
        network.nodes[-1].output[0] = "m"
        network.nodes.append(node("Add", "m b3", "scores"))
    source = save_network(tmp_path / "small.onnx", network)
    made = make(source, "int8", "uint8", "scores")
    images = draw_images(64)
    expected = run(source, images)
    assert np.abs(run(made, images) - expected).max() <= 0.1 * np.abs(expected).max()
    assert (
        len(read_quantisation(onnx.load(made))) == 3 + 4
    )  # the layers' weights, and what they read


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
    model = onnx.load(made)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    (gemm,) = (one for one in model.graph.node if one.op_type == "Gemm")
    (back,) = (one for one in model.graph.node if gemm.input[1] in one.output)
    assert constants[back.input[1]].shape == (CLASSES,)  # a step for each output


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


def test_the_bias_takes_off_what_rounding_adds(tmp_path, make, calibration):
    """Mean scores of the calibration images: nearer to float32's than with the source's bias."""
    network = make_network()
    # One large weight a channel: the others are rounded roughly, all in one direction.
    network.weights["w3"] = np.abs(network.weights["w3"]) % 0.003 + 0.0017
    network.weights["w3"][:, 0] = 1.0
    source = save_network(tmp_path / "small.onnx", network)
    images = np.load(calibration / "images.npy")
    expected = run(source, images).mean(axis=0)
    made = make(source, "int8", "uint8", "scores")
    model = onnx.load(made)
    corrected = np.abs(run(made, images).mean(axis=0) - expected).mean()
    (gemm,) = (one for one in model.graph.node if one.op_type == "Gemm")
    (bias,) = (one for one in model.graph.initializer if one.name == gemm.input[2])
    bias.CopyFrom(numpy_helper.from_array(network.weights["b3"], bias.name))
    onnx.save(model, made)
    assert corrected < 0.5 * np.abs(run(made, images).mean(axis=0) - expected).mean()


def test_a_tensor_of_zeros(tmp_path, make):
    network = make_network()
    network.weights["w1"] *= 0
    network.weights["b1"] = -np.abs(network.weights["b1"])  # so that nothing passes the Relu
    source = save_network(tmp_path / "small.onnx", network)
    made = make(source, "int8", "uint8", "scores")
    np.testing.assert_allclose(
        run(made, draw_images(4)), run(source, draw_images(4)), rtol=0, atol=0.05
    )


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
