"""Put preprocessing before a network and the answer behind it, in the graph itself.

Before: (pixel - mean) * scale and the layout, so that the graph takes uint8 images as they are
stored. Behind: the class with the highest score. The model's recipe says what both are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.models.graph import (
    Names,
    find_only_reader,
    list_names,
    prune,
    read_shape,
    rename,
    replace_nodes,
    skip_node,
)
from ck_mlperf.models.onnx_facts import CHANNELS
from ck_mlperf.models.recipe import InputSpec, ModelRecipe

if TYPE_CHECKING:
    import onnx


def compose(
    path: Path, model: onnx.ModelProto, recipe: ModelRecipe, input_kind: str, output_kind: str
) -> InputSpec:
    """Add preprocessing and answer to the model in place. Returns what its input is now.

    path: of the source, for messages. recipe: the source's. model: from `network.read_network`;
    the types inside may have been converted since.
    input_kind: 'uint8', [N, side, side, 3]; 'fp32', the network's own input as float32; or
    'native', the input in the type that the first layer computes in: samples are normalised, and
    for int8 quantised, when they are loaded. The input keeps its name.
    output_kind: 'class', int32 [N], or 'scores', float32 [N, classes]. The output's name is its
    kind.
    Preprocessing is computed in float32, step by step as `ck_mlperf.models.recipe.normalise` does.
    Raises UserError where the network cannot have such an input or output.
    """
    _compose_output(path, model.graph, recipe, output_kind)
    if input_kind == "native":
        return _expose_input(model.graph, recipe)
    _compose_input(path, model.graph, recipe, input_kind)
    name = model.graph.input[0].name
    if input_kind == "fp32":
        return InputSpec(name, recipe.input.layout, "float32")
    return InputSpec(name, "NHWC", "uint8")


def _compose_input(path: Path, graph: onnx.GraphProto, recipe: ModelRecipe, kind: str) -> None:
    from onnx import TensorProto, helper

    entry = graph.input[0]
    inner_type = entry.type.tensor_type.elem_type
    is_uint8, is_planar = recipe.input.dtype == "uint8", recipe.input.layout == "NCHW"
    if kind == "fp32" and is_uint8:
        raise UserError(
            f"{path} takes uint8 images: it has no float input to keep. Convert with uint8 input"
        )
    if (kind == "fp32" and inner_type == TensorProto.FLOAT) or (is_uint8 and not is_planar):
        return
    chain = _Chain(graph, "preprocess")
    tensor = outer = entry.name
    inner = chain.names.new(f"{outer}.network")
    rename(graph, {outer: inner})
    dtype, shape = TensorProto.FLOAT, read_shape(entry)
    if kind == "uint8":
        side = recipe.image.side
        dtype, shape = TensorProto.UINT8, [shape[0], side, side, CHANNELS]
        if not is_uint8:
            tensor = chain.add("Cast", tensor, to=TensorProto.FLOAT)
            if any(recipe.mean):
                tensor = chain.add("Sub", tensor, constant=("mean", recipe.mean))
            if set(recipe.scale) != {1}:
                tensor = chain.add("Mul", tensor, constant=("scale", recipe.scale))
        if is_planar:
            tensor = chain.add("Transpose", tensor, perm=[0, 3, 1, 2])
    entry.CopyFrom(helper.make_tensor_value_info(outer, dtype, shape))
    if inner_type == TensorProto.FLOAT16:
        tensor = chain.add("Cast", tensor, to=TensorProto.FLOAT16)
    chain.end(inner)
    replace_nodes(graph, [*chain.nodes, *graph.node])


def _expose_input(graph: onnx.GraphProto, recipe: ModelRecipe) -> InputSpec:
    """Let the graph start at its first layer: remove a change of layout, and an int8 quantisation.

    Anything else before that layer, such as the network's own normalisation, stays.
    """
    from onnx import TensorProto, helper, numpy_helper

    entry = graph.input[0]
    layout, step = recipe.input.layout, None
    dims = read_shape(entry)
    dtype = entry.type.tensor_type.elem_type
    if recipe.input.dtype == "uint8":  # the network does all of it itself
        return InputSpec(entry.name, layout, "uint8")
    first = find_only_reader(graph, entry.name)
    if first is not None and first.op_type == "Transpose" and layout == "NHWC":
        permutation = next((list(a.ints) for a in first.attribute if a.name == "perm"), [])
        if permutation == [0, 3, 1, 2]:
            layout, dims = "NCHW", [dims[0], dims[3], dims[1], dims[2]]
            skip_node(graph, first, entry.name)
            first = find_only_reader(graph, entry.name)
    if first is not None and first.op_type == "QuantizeLinear":
        values = {tensor.name: tensor for tensor in graph.initializer}
        scale = values.get(first.input[1])
        if scale is not None and not scale.dims:
            step, dtype = float(numpy_helper.to_array(scale)), TensorProto.INT8
            skip_node(graph, first, entry.name)
    entry.CopyFrom(helper.make_tensor_value_info(entry.name, dtype, dims))
    prune(graph)
    names = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.INT8: "int8"}
    return InputSpec(entry.name, layout, names[dtype], step)


def _compose_output(path: Path, graph: onnx.GraphProto, recipe: ModelRecipe, kind: str) -> None:
    from onnx import TensorProto, helper

    if recipe.output.kind == "class" and kind == "scores":
        raise UserError(
            f"{path}: its output {recipe.output.name} is the class itself, there are no scores. "
            "Name another output in output.name of its JSON file, or convert with the class as "
            "output"
        )
    value = graph.output[0]
    tensor_type = value.type.tensor_type
    axes = len(tensor_type.shape.dim) if tensor_type.HasField("shape") else None
    if recipe.output.kind == "scores" and axes is not None and axes < 2:
        raise UserError(f"{path}: output {value.name} has no axis of images: want [N, classes]")
    names = Names(list_names(graph))
    if kind in names:
        rename(graph, {kind: names.new(f"{kind}.network")})
    tensor = inner = value.name
    chain = _Chain(graph, "answer")
    if recipe.output.kind == "scores":
        if tensor_type.elem_type != TensorProto.FLOAT:
            tensor = chain.add("Cast", tensor, to=TensorProto.FLOAT)
        if axes != 2:
            tensor = chain.add("Flatten", tensor, axis=1)
        if kind == "class":
            tensor = chain.add("ArgMax", tensor, axis=1, keepdims=0)
            tensor = chain.add("Cast", tensor, to=TensorProto.INT32)
    else:
        if tensor_type.elem_type != TensorProto.INT32:
            tensor = chain.add("Cast", tensor, to=TensorProto.INT32)
        if axes != 1:
            tensor = chain.add("Reshape", tensor, constant=("shape", [-1]))
    if chain.nodes:
        chain.end(kind)
        graph.node.extend(chain.nodes)
    else:
        rename(graph, {inner: kind})
    batch = read_shape(graph.input[0])[0]
    if kind == "scores":
        made = helper.make_tensor_value_info(kind, TensorProto.FLOAT, [batch, recipe.classes])
    else:
        made = helper.make_tensor_value_info(kind, TensorProto.INT32, [batch])
    value.CopyFrom(made)


class _Chain:
    """New nodes, each of which reads the output of the one before. Their names clash with none."""

    def __init__(self, graph: onnx.GraphProto, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.names = Names(list_names(graph))
        self._graph = graph
        self._prefix = prefix

    def add(
        self, kind: str, tensor: str, constant: tuple[str, Any] | None = None, **attributes: Any
    ) -> str:
        """Add a node that reads `tensor` and `constant`. Returns the name of its output."""
        import numpy as np
        from onnx import helper, numpy_helper

        inputs = [tensor]
        if constant is not None:
            label, values = constant
            dtype = np.int64 if kind == "Reshape" else np.float32
            inputs.append(self.names.new(f"{self._prefix}.{label}"))
            self._graph.initializer.append(
                numpy_helper.from_array(np.array(values, dtype), inputs[1])
            )
        name = self.names.new(f"{self._prefix}.{kind.lower()}")
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def end(self, name: str) -> None:
        """Name the last node's output."""
        self.nodes[-1].output[0] = name
