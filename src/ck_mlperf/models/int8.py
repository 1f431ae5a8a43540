"""Convert a float32 network to int8: calibrate, place quantisation, correct the biases.

The types are in the ONNX file itself, as QuantizeLinear and DequantizeLinear nodes, so that every
engine takes the same file: TensorRT 8.6 to 11 (11 accepts nothing else), TensorRT for RTX, ONNX
Runtime.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ck_mlperf.common.errors import UserError
from ck_mlperf.models.calibrate import INT8_MAX, Statistics, calibrate
from ck_mlperf.models.graph import Names, list_names, name_nodes, prune, replace_nodes
from ck_mlperf.models.network import (
    HEAVY_OPS,
    QDQ_OPSET,
    keep_standard_opset,
    raise_opset,
    simplify,
)
from ck_mlperf.models.recipe import ModelRecipe

# These compute in int8 if their input is int8. If it were float32, the layer before them would
# write float32 for them alone.
_POOLING_OPS = ("AveragePool", "GlobalAveragePool", "ReduceMean")

# {tensor to quantise: [(index of a node that reads it, which of its inputs)]}
_Reads = Mapping[str, Sequence[tuple[int, int]]]


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A heavy node with constant weights: its index among the nodes, the axis of its outputs."""

    index: int
    weights: str
    axis: int
    is_linear: bool  # output = weights * input + bias, whether or not it has a bias yet


def use_int8(
    path: Path,
    model: onnx.ModelProto,
    recipe: ModelRecipe,
    images: npt.NDArray[np.uint8],
    show_progress: bool = False,
) -> onnx.ModelProto:
    """The network with QuantizeLinear/DequantizeLinear pairs around what int8 shall compute.

    Symmetric: every zero point is 0. The inputs of Conv, Gemm, MatMul and of the last pooling are
    quantised per tensor, up to a percentile of the values that `images` give; weights per output
    channel. Outputs and biases stay float32: the next layer quantises what it reads, so that
    TensorRT fuses what is between. Of an Add's two inputs one is quantised, that of the skip
    connection; the other can then be fused with the convolution before it.
    Rounding the weights shifts the mean of a layer's output; the bias is corrected by that (Nagel
    et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, with the
    means from calibration). Without the correction MobileNet loses 1.6% of its accuracy.

    images: uint8 [n, side, side, 3], as recipe.image says. recipe: of the source.
    Raises UserError where nothing can be quantised, or where a value is infinite.
    """
    model = simplify(path, model)
    if keep_standard_opset(path, model) < QDQ_OPSET:
        model = raise_opset(path, model, QDQ_OPSET)
        name_nodes(model.graph)
    layers = _find_layers(model.graph)
    if not layers:
        raise UserError(
            f"{path} has no {', '.join(HEAVY_OPS)} with constant weights: nothing to quantise"
        )
    reads = _find_reads(model.graph, layers)
    statistics = calibrate(path, model, recipe, list(reads), images, show_progress)
    _insert_quantisation(model.graph, layers, reads, statistics)
    prune(model.graph)
    return model


def _find_layers(graph: onnx.GraphProto) -> list[_Layer]:
    constants = {
        tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT
    }
    layers = []
    for index, node in enumerate(graph.node):
        weights = constants.get(node.input[1]) if node.op_type in HEAVY_OPS else None
        if weights is None or node.input[0] in constants:
            continue
        values = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == "Conv":
            layers.append(_Layer(index, weights.name, 0, True))
        elif node.op_type == "Gemm" and not values.get("transA"):
            axis = 0 if values.get("transB") else 1
            is_plain = values.get("alpha", 1) == values.get("beta", 1) == 1
            layers.append(_Layer(index, weights.name, axis, is_plain))
        elif node.op_type == "MatMul" and len(weights.dims) == 2:
            layers.append(_Layer(index, weights.name, 1, False))
    return layers


def _find_reads(graph: onnx.GraphProto, layers: Sequence[_Layer]) -> _Reads:
    reads: dict[str, list[tuple[int, int]]] = {}
    for layer in layers:
        reads.setdefault(graph.node[layer.index].input[0], []).append((layer.index, 0))
    made_at = {name: index for index, node in enumerate(graph.node) for name in node.output}
    for index, node in enumerate(graph.node):
        if node.op_type in _POOLING_OPS and node.input[0] in made_at:
            reads.setdefault(node.input[0], []).append((index, 0))
    convolutions = {graph.node[layer.index].output[0] for layer in layers}
    for index, node in enumerate(graph.node):
        if node.op_type != "Add" or not all(name in made_at for name in node.input):
            continue
        # The skip connection: what layers read anyway, else the output of one of the two layers.
        known = [name for name in node.input if name in reads]
        if known:
            skip = min(known, key=made_at.__getitem__)
        elif convolutions.issuperset(node.input):
            skip = max(node.input, key=made_at.__getitem__)
        else:
            continue
        reads.setdefault(skip, []).append((index, list(node.input).index(skip)))
    return reads


def _insert_quantisation(
    graph: onnx.GraphProto,
    layers: Sequence[_Layer],
    reads: _Reads,
    statistics: Mapping[str, Statistics],
) -> None:
    """Place the pairs of QuantizeLinear and DequantizeLinear, and correct the biases."""
    names = Names(list_names(graph))
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = list(graph.node)
    before: dict[int, list[onnx.NodeProto]] = {}

    def add_constant(values: Any, wish: str) -> str:
        name = names.new(wish)
        graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add_pair(tensor: str, scale: Any, index: int, **attributes: Any) -> str:
        """Quantise `tensor` before the node at `index`. Returns the dequantised tensor's name."""
        scale = np.asarray(scale, np.float32)
        parameters = [
            add_constant(scale, f"{tensor}.scale"),
            add_constant(np.zeros(scale.shape, np.int8), f"{tensor}.zero"),
        ]
        for kind, wish in (("QuantizeLinear", "int8"), ("DequantizeLinear", "back")):
            made = names.new(f"{tensor}.{wish}")
            node = helper.make_node(kind, [tensor, *parameters], [made], name=made, **attributes)
            before.setdefault(index, []).append(node)
            tensor = made
        return tensor

    for layer in layers:
        node = nodes[layer.index]
        seen = statistics[node.input[0]]
        weights = np.moveaxis(numpy_helper.to_array(constants[layer.weights]), layer.axis, 0)
        bias_name = node.input[2] if len(node.input) > 2 else ""
        is_known = not bias_name or bias_name in constants
        bias = np.zeros(len(weights), np.float32)
        if bias_name in constants:
            bias = numpy_helper.to_array(constants[bias_name])
        scale = _weight_scale(weights, bias, seen.scale)
        if layer.is_linear and is_known and bias.shape == (len(weights),):
            steps = scale.reshape(-1, *[1] * (weights.ndim - 1))
            rounded = np.clip(np.rint(weights / steps), -INT8_MAX, INT8_MAX) * steps
            error = _mean_output(weights - rounded, seen.mean, node.op_type == "Conv")
            if error is not None:
                corrected = add_constant((bias + error).astype(np.float32), f"{node.name}.bias")
                node.input[:] = [*node.input[:2], corrected]
        node.input[1] = add_pair(layer.weights, scale, layer.index, axis=layer.axis)
    for tensor, uses in reads.items():
        back = add_pair(tensor, statistics[tensor].scale, min(uses)[0])
        for index, position in uses:
            nodes[index].input[position] = back
    replace_nodes(
        graph,
        [new for index, node in enumerate(nodes) for new in (*before.get(index, ()), node)],
    )


def _weight_scale(
    weights: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], input_scale: float
) -> npt.NDArray[np.float32]:
    """The step of each output channel, with which its largest weight is 127.

    weights: [channels, ...]. ONNX Runtime rounds the bias to int32, in steps of input scale times
    weight scale. In a channel of nearly no weights this would overflow, so its steps are larger,
    which costs nothing.
    """
    largest = np.abs(weights).reshape(len(weights), -1).max(axis=1)
    scale = np.where(largest > 0, largest / INT8_MAX, 1.0)
    if bias.shape == scale.shape:
        scale = np.maximum(scale, np.abs(bias) / (input_scale * 2.0**30))
    # At least the smallest normal number: a denormal would divide by 0 where they are flushed.
    steps: npt.NDArray[np.float32] = np.maximum(scale, np.finfo(np.float32).tiny, dtype=np.float32)
    return steps


def _mean_output(
    weights: npt.NDArray[Any], mean: npt.NDArray[np.float64], is_convolution: bool
) -> npt.NDArray[Any] | None:
    """The mean output of a layer, [output channels], for inputs of `mean`, [input channels].

    weights: [output channels, input channels of a group, ...]. Padding is left out of account.
    None where the sizes do not fit, as when a Gemm follows another shape.
    """
    weights = weights.reshape(*weights.shape[:2], -1).sum(axis=2)
    groups, rest = divmod(len(mean), weights.shape[1])
    if rest or len(weights) % groups or (groups > 1 and not is_convolution):
        return None
    grouped = weights.reshape(groups, -1, weights.shape[1])
    result: npt.NDArray[Any] = (grouped @ mean.reshape(groups, -1, 1)).ravel()
    return result
