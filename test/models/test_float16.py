"""float16: what is computed in it, and what stays in float32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from ck_mlperf.common.errors import UserError
from ck_mlperf.models.float16 import list_float32_nodes

from ..builders.networks import (
    FLOAT,
    draw_images,
    kinds,
    make_network,
    node,
    run,
    save_network,
)

pytestmark = pytest.mark.slow  # nothing in it depends on the version of Python


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
    names = set(list_float32_nodes(model))
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
    names = list_float32_nodes(model)
    (mul,) = (one.name for one in model.graph.node if one.op_type == "Mul")
    assert mul in names
