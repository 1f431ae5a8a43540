"""Convert a float32 network to float16.

The types are in the ONNX file itself, in ONNX's own operators, so that every engine takes the same
file: TensorRT 8.6 to 11 (11 accepts nothing else), TensorRT for RTX, ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from ck_mlperf.common.errors import UserError
from ck_mlperf.models.graph import (
    Names,
    clear_types,
    list_names,
    name_nodes,
    prune,
    rename,
    sort_nodes,
    walk_graphs,
)
from ck_mlperf.models.network import HEAVY_OPS, simplify

if TYPE_CHECKING:
    import onnx

# These stay in float32, in addition to what the library itself leaves there: sums over many
# elements, exponentials and small variances exceed float16's range or precision.
_FLOAT32_OPS = frozenset(
    {
        "ArgMax",
        "ArgMin",
        "BatchNormalization",
        "Exp",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "Pow",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Softmax",
        "Softplus",
    }
)
_CONVERTING_OPS = ("Cast", "Constant", "DequantizeLinear", "Identity", "QuantizeLinear")
_FLOAT16_MAX = 65504.0


def use_float16(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """The network in float16, input and output too; softmax and the like stay in float32.

    The output is float32 where a softmax comes last. path: of the source, for messages.
    Raises UserError where a heavy layer has a weight beyond float16's range.
    """
    from onnx import TensorProto
    from onnxruntime.transformers import float16

    model = simplify(path, model)
    wide = _find_wide_nodes(path, model.graph)
    original = _separate_names(model.graph)
    half: onnx.ModelProto = float16.convert_float_to_float16(
        model,
        op_block_list=sorted({*float16.DEFAULT_OP_BLOCK_LIST, *_FLOAT32_OPS}),
        node_block_list=wide,
    )
    clear_types(half.graph)
    sort_nodes(half.graph)  # the library puts its casts at the end
    _skip_needless_casts(half.graph, wide)
    prune(half.graph)
    taken = Names(list_names(half.graph))
    rename(half.graph, {name: old for name, old in original.items() if old not in taken})
    name_nodes(half.graph)
    types = _infer_types(half)
    for node in half.graph.node:
        if node.op_type in HEAVY_OPS and types.get(node.output[0]) == TensorProto.FLOAT:
            raise UserError(f"{path}: {node.op_type} {node.name} cannot be computed in float16")
    return half


def list_float32_nodes(model: onnx.ModelProto) -> list[str]:
    """The names of those nodes of a converted model that must be computed in float32.

    For an engine that chooses types itself and treats those in the file as hints. Of a float16
    file: what it leaves in float32. Of an int8 file: sums and exponentials of unquantised tensors.
    """
    from onnx import TensorProto

    types = _infer_types(model)
    quantised = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    is_half = TensorProto.FLOAT16 in types.values()
    return [
        node.name
        for node in model.graph.node
        if types.get(node.output[0]) == TensorProto.FLOAT
        and node.op_type not in _CONVERTING_OPS
        and (is_half or (node.op_type in _FLOAT32_OPS and node.input[0] not in quantised))
    ]


def _infer_types(model: onnx.ModelProto) -> dict[str, int]:
    """The types of the tensors that nodes compute, as onnx.TensorProto numbers them."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}


def _find_wide_nodes(path: Path, graph: onnx.GraphProto) -> list[str]:
    """The nodes with a constant beyond float16's range, which must stay in float32."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    def is_wide(tensor: onnx.TensorProto) -> bool:
        if tensor.data_type != TensorProto.FLOAT:
            return False
        values = numpy_helper.to_array(tensor)
        return bool((np.isfinite(values) & (np.abs(values) > _FLOAT16_MAX)).any())

    wide = {tensor.name for tensor in graph.initializer if is_wide(tensor)}
    found = []
    for node in graph.node:
        if wide.intersection(node.input) or any(is_wide(item.t) for item in node.attribute):
            if node.op_type in HEAVY_OPS:
                raise UserError(
                    f"{path}: {node.op_type} {node.name} has weights beyond {_FLOAT16_MAX:.0f}, "
                    "the largest number in float16. Convert to fp32, or to int8"
                )
            found.append(node.name)
    return found


def _separate_names(graph: onnx.GraphProto) -> dict[str, str]:
    """Rename tensors called like another one plus '_...': the library makes up such names itself.

    Input and output keep their names. Returns {new name: old name}.
    """
    names = Names(list_names(graph))
    fixed = {value.name for value in (*graph.input, *graph.output)}
    tensors = {name for part in walk_graphs(graph) for node in part.node for name in node.output}
    tensors |= {tensor.name for part in walk_graphs(graph) for tensor in part.initializer}
    tensors |= fixed
    changes = {}
    for name in sorted(tensors - fixed):
        cuts = [index for index, letter in enumerate(name) if letter == "_"]
        if any(name[:cut] in tensors for cut in cuts):
            changes[name] = names.new(f"{name}.own")
    rename(graph, changes)
    return {new: old for old, new in changes.items()}


def _skip_needless_casts(graph: onnx.GraphProto, wide: Collection[str]) -> None:
    """Where float32 is cast to float16 and back, which loses precision, use the float32.

    wide: names of nodes that were left in float32.
    """
    from onnx import TensorProto
    from onnxruntime.transformers import float16

    float32_ops = {*float16.DEFAULT_OP_BLOCK_LIST, *_FLOAT32_OPS} - {"ArgMax", "ArgMin"}
    producers = {name: node for node in graph.node for name in node.output}

    def cast_from(tensor: str, dtype: int) -> str:
        """What is cast to `dtype` to give `tensor`; '' where that is no cast."""
        node = producers.get(tensor)
        is_cast = node is not None and node.op_type == "Cast" and node.attribute[0].i == dtype
        return str(node.input[0]) if node is not None and is_cast else ""

    def is_float32(tensor: str) -> bool:
        node = producers.get(tensor)
        return node is not None and (node.op_type in float32_ops or node.name in wide)

    replaced = {}
    for name in producers:
        source = cast_from(cast_from(name, TensorProto.FLOAT), TensorProto.FLOAT16)
        if is_float32(source):
            replaced[name] = source
    for node in graph.node:
        node.input[:] = [replaced.get(name, name) for name in node.input]
    output = graph.output[0]
    source = cast_from(output.name, TensorProto.FLOAT16)
    if is_float32(source):
        output.type.tensor_type.elem_type = TensorProto.FLOAT
        producers[output.name].output[0] = Names(list_names(graph)).new(f"{output.name}.float16")
        rename(graph, {source: output.name})
