"""Small ONNX classifiers, the images to run them on, and running them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ck_mlperf.models.recipe import load_model_recipe, normalise

SIDE, CLASSES = 8, 10


MEAN, SCALE = [120.0, 110.0, 100.0], [0.02, 0.01, 0.015]


FLOAT = TensorProto.FLOAT
AVERAGE_FEATURES = [0.4, 1.0, 0.6, 0.9, 0.9, 0.5, 0.6, 0.3]


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
    """Two convolutions with a skip connection, batch norm, Gemm: what classifiers consist of.

    It tells images apart: `draw_images` are of nine classes to it.
    """
    random = np.random.default_rng(1)

    def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
        values = random.normal(size=shape) * scale / np.sqrt(np.prod(shape[1:]))
        return values.astype(np.float32)

    weights = {
        "w1": draw(8, 3, 3, 3, scale=2),
        "b1": draw(8, scale=0.1),
        "w2": draw(8, 8, 3, 3),
        "gamma": 1 + draw(8) / 10,
        "beta": draw(8, scale=0.1),
        "running_mean": draw(8, scale=0.1),
        "running_variance": 1 + draw(8) ** 2,
        "w3": draw(CLASSES, 8),
    }
    # The features of an average image: without this its class would be that of all images.
    average = np.array(AVERAGE_FEATURES, np.float32)
    weights["b3"] = -(weights["w3"] @ average)
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


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(one.op_type for one in model.graph.node)


def draw_images(count: int) -> np.ndarray:
    """The first images of a series. Blots rather than noise, which all looks alike to a network."""
    random = np.random.default_rng(3)
    coarse = random.integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    return coarse.repeat(SIDE // 2, axis=1).repeat(SIDE // 2, axis=2)


def transpose_first(network: Network) -> Network:
    """The same network for NHWC."""
    network.nodes[0].input[0] = "planar"
    network.nodes.insert(0, node("Transpose", "images", "planar", perm=[0, 3, 1, 2]))
    return dataclasses.replace(network, layout="NHWC")


def list_readers(model: onnx.ModelProto, tensor: str) -> list[str]:
    return [one.op_type for one in model.graph.node if tensor in one.input]
