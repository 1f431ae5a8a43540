"""Take a classifier out of its ONNX file, and put what belongs before and behind it into the graph.

Before: (pixel - mean) * scale and the layout, so that the graph takes uint8 images as they are
stored. Behind: the class with the highest score. Source of both is the model's recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.models.onnx_facts import CHANNELS, external_files, load_onnx
from ck_mlperf.models.recipe import InputSpec, ModelRecipe

if TYPE_CHECKING:
    import onnx

# A protobuf message, which an ONNX file is, cannot be larger.
MAX_BYTES = (1 << 31) - 1
# The first opset in which Sub and Mul broadcast as numpy does (ONNX's Changelog.md).
_OLDEST_OPSET = 7
# The first with QuantizeLinear per channel, which is also old enough for TensorRT 8.6.
QDQ_OPSET = 13
# The first IR version in which a weight need not be an input of the graph too.
_OLDEST_IR = 4

INPUT_KINDS = ("uint8", "fp32", "native")
OUTPUT_KINDS = ("class", "scores")
DOMAINS = ("", "ai.onnx")
_QUANTISED_OPS = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)


class Names:
    """The names in a graph, of tensors and nodes, and new ones beside them."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._taken = {name for part in walk_graphs(graph) for name in _list_names(part)}

    def __contains__(self, name: str) -> bool:
        return name in self._taken

    def new(self, wish: str) -> str:
        """`wish`, or where that is taken `wish.2` and so on."""
        name, number = wish, 1
        while name in self._taken:
            number += 1
            name = f"{wish}.{number}"
        self._taken.add(name)
        return name


def read_network(path: Path, recipe: ModelRecipe) -> onnx.ModelProto:
    """The network at `path` by itself, all of it in float32 where it was in float16.

    One input, of the batch that the file fixes or else 'N', and the one output that the recipe
    reads; weights inside, no functions, no names of intermediate types, every node named.
    Raises UserError on operators that are not ONNX's own, on a network that is quantised already,
    and where it does not fit into one file.
    """
    import onnx
    import onnx.inliner

    model = load_onnx(path)
    folder = path.resolve().parent
    size_bytes = path.stat().st_size + sum(
        (folder / name).stat().st_size for name in external_files(model)
    )
    check_size(path, size_bytes)
    onnx.load_external_data_for_model(model, str(folder))
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _check_operators(path, model)
    opset = keep_standard_opset(path, model)
    if opset < _OLDEST_OPSET:
        raise UserError(
            f"{path} is in opset {opset}: too old, operators meant something else then. Export it "
            f"with opset {_OLDEST_OPSET} or newer; {QDQ_OPSET} is a good choice"
        )
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    _keep_only(graph.input, lambda value: value.name not in weights)
    _keep_only(graph.output, lambda value: value.name == recipe.output.name)
    clear_types(graph)
    _use_float32(graph)
    _fix_input_shape(graph.input[0], recipe)
    prune(graph)
    name_nodes(graph)
    return model


def compose(
    path: Path, model: onnx.ModelProto, recipe: ModelRecipe, input_kind: str, output_kind: str
) -> InputSpec:
    """Put preprocessing before the network and the answer behind it, in place.

    Returns what the input has become.

    path: of the source, for messages. recipe: the source's; the network is that of `read_network`,
    its inner types may be others by now.
    input_kind: 'uint8', [N, side, side, 3]; 'fp32', the network's own input as float32; or
    'native', the input in the type that the first layer computes in, normalised and for int8
    quantised before: the samples can be prepared so when they are loaded. All under the network's
    own name. output_kind: 'class', int32 [N], or 'scores', float32
    [N, classes]; the output's name is its kind.
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


def walk_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and all graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from walk_graphs(inner)


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors other names, everywhere."""
    for part in walk_graphs(graph):
        for value in (*part.input, *part.output, *part.value_info, *part.initializer):
            value.name = names.get(value.name, value.name)
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give a name to every node that has none, or another node's: that of its output, if free."""
    taken = {node.name for node in graph.node}
    seen = {""}
    for node in graph.node:
        if node.name in seen:
            wish = name = node.name or node.output[0]
            number = 1
            while name in taken:
                number += 1
                name = f"{wish}.{number}"
            node.name = name
            taken.add(name)
        seen.add(node.name)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put every node behind those whose outputs it reads, and change the order no further."""
    made_by = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    order: dict[int, None] = {}
    for first in range(len(graph.node)):
        stack = [first]
        while stack:
            index = stack[-1]
            missing = [
                made_by[name]
                for name in list_reads(graph.node[index])
                if name in made_by and made_by[name] not in order
            ]
            if missing and index not in order:
                stack.append(missing[0])
            else:
                order.setdefault(stack.pop())
    replace_nodes(graph, [graph.node[index] for index in order])


def list_reads(node: onnx.NodeProto) -> list[str]:
    """The tensors that a node reads, those that graphs inside it read included."""
    names = list(node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            names += [value.name for value in inner.output]
            names += [name for step in inner.node for name in list_reads(step)]
    return names


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Let `nodes`, some of which may be the graph's own, be the graph's nodes."""
    count = len(graph.node)
    graph.node.extend(nodes)  # copies, so the old ones may go only then
    del graph.node[:count]


def prune(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights from which no output follows."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(list_reads(node))
    replace_nodes(graph, kept[::-1])
    _keep_only(graph.initializer, lambda tensor: tensor.name in wanted)


def clear_types(graph: onnx.GraphProto) -> None:
    """Forget the types of intermediate tensors, which anyone can derive from the rest."""
    for part in walk_graphs(graph):
        del part.value_info[:]


def check_size(path: Path, size_bytes: int) -> None:
    """Raises UserError where a model does not fit into one file."""
    if size_bytes > MAX_BYTES:
        raise UserError(
            f"{path}: {size_bytes / (1 << 30):.1f} GiB with its weights; one ONNX file holds less "
            "than 2 GiB. Take a smaller model"
        )


def keep_standard_opset(path: Path, model: onnx.ModelProto) -> int:
    """Drop the opsets that no node needs. Returns the number of ONNX's own."""
    _keep_only(model.opset_import, lambda opset: opset.domain in DOMAINS)
    if not model.opset_import:
        raise UserError(f"{path}: does not say which opset it uses. Export the model again")
    return int(max(opset.version for opset in model.opset_import))


def raise_opset(path: Path, model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in a newer opset. Raises UserError where onnx cannot convert it."""
    from onnx import helper, version_converter

    try:
        raised = version_converter.convert_version(model, opset)
    except Exception as error:  # the converter's errors have no common base
        raise UserError(
            f"{path}: cannot be brought to opset {opset}: {error}. Export it with that opset"
        ) from error
    raised.ir_version = max(model.ir_version, helper.find_min_ir_version_for(raised.opset_import))
    clear_types(raised.graph)
    return raised


def _compose_input(path: Path, graph: onnx.GraphProto, recipe: ModelRecipe, kind: str) -> None:
    from onnx import TensorProto, helper

    inner_type = graph.input[0].type.tensor_type.elem_type
    is_planar = recipe.input.layout == "NCHW"
    if kind == "fp32":
        if recipe.input.dtype == "uint8":
            raise UserError(
                f"{path} takes uint8 images: it has no float input to keep. Convert with uint8 "
                "input"
            )
        if inner_type == TensorProto.FLOAT:
            return
    elif recipe.input.dtype == "uint8" and not is_planar:
        return
    chain = _Chain(graph, "preprocess")
    outer = graph.input[0].name
    inner = chain.names.new(f"{outer}.network")
    rename(graph, {outer: inner})
    shape = [dim.dim_value or dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim]
    if kind == "fp32":
        dtype = TensorProto.FLOAT
    else:
        side = recipe.image.side
        dtype, shape = TensorProto.UINT8, [shape[0], side, side, CHANNELS]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(outer, dtype, shape))
    tensor = outer
    if kind == "uint8":
        if recipe.input.dtype != "uint8":
            tensor = chain.add("Cast", tensor, to=TensorProto.FLOAT)
            if any(recipe.mean):
                tensor = chain.add("Sub", tensor, constant=("mean", recipe.mean))
            if set(recipe.scale) != {1}:
                tensor = chain.add("Mul", tensor, constant=("scale", recipe.scale))
        if is_planar:
            tensor = chain.add("Transpose", tensor, perm=[0, 3, 1, 2])
    if inner_type == TensorProto.FLOAT16:
        tensor = chain.add("Cast", tensor, to=TensorProto.FLOAT16)
    chain.end(inner)
    replace_nodes(graph, [*chain.nodes, *graph.node])


def _expose_input(graph: onnx.GraphProto, recipe: ModelRecipe) -> InputSpec:
    """Let the graph begin where its first layer reads: behind a change of layout, and for int8
    behind the quantisation. What else stands there (a network's own normalising) stays.
    """
    from onnx import TensorProto, helper, numpy_helper

    entry = graph.input[0]
    layout, step = recipe.input.layout, None
    dims = [dim.dim_value or dim.dim_param for dim in entry.type.tensor_type.shape.dim]
    dtype = entry.type.tensor_type.elem_type
    if recipe.input.dtype == "uint8":  # the network does all of it itself
        return InputSpec(entry.name, layout, "uint8")
    first = _find_only_reader(graph, entry.name)
    if first is not None and first.op_type == "Transpose" and layout == "NHWC":
        permutation = next((list(a.ints) for a in first.attribute if a.name == "perm"), [])
        if permutation == [0, 3, 1, 2]:
            layout, dims = "NCHW", [dims[0], dims[3], dims[1], dims[2]]
            _skip_node(graph, first, entry.name)
            first = _find_only_reader(graph, entry.name)
    if first is not None and first.op_type == "QuantizeLinear":
        values = {tensor.name: tensor for tensor in graph.initializer}
        scale = values.get(first.input[1])
        if scale is not None and not scale.dims:
            step, dtype = float(numpy_helper.to_array(scale)), TensorProto.INT8
            _skip_node(graph, first, entry.name)
    entry.CopyFrom(helper.make_tensor_value_info(entry.name, dtype, dims))
    prune(graph)
    names = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.INT8: "int8"}
    return InputSpec(entry.name, layout, names[dtype], step)


def _find_only_reader(graph: onnx.GraphProto, tensor: str) -> onnx.NodeProto | None:
    """The node that reads a tensor, where there is just one."""
    readers = [node for node in graph.node if tensor in list_reads(node)]
    return readers[0] if len(readers) == 1 else None


def _skip_node(graph: onnx.GraphProto, node: onnx.NodeProto, tensor: str) -> None:
    """Remove a node; what read its output reads `tensor`."""
    output = node.output[0]
    graph.node.remove(node)
    rename(graph, {output: tensor})


def _compose_output(path: Path, graph: onnx.GraphProto, recipe: ModelRecipe, kind: str) -> None:
    from onnx import TensorProto, helper

    if recipe.output.kind == "class" and kind == "scores":
        raise UserError(
            f"{path}: its output {recipe.output.name} is the class itself, there are no scores. "
            "Name another output in output.name of its JSON file, or convert with the class as "
            "output"
        )
    value = graph.output[0]
    shape = value.type.tensor_type.shape.dim if value.type.tensor_type.HasField("shape") else None
    if recipe.output.kind == "scores" and shape is not None and len(shape) < 2:
        raise UserError(f"{path}: output {value.name} has no axis of images: want [N, classes]")
    tensor = inner = value.name
    if value.name != kind:
        clash = {kind: Names(graph).new(f"{kind}.network")} if kind in Names(graph) else {}
        rename(graph, clash)
    else:
        tensor = inner = Names(graph).new(f"{kind}.network")
        rename(graph, {kind: inner})
    chain = _Chain(graph, "answer")
    elem_type = value.type.tensor_type.elem_type
    if recipe.output.kind == "scores":
        if elem_type != TensorProto.FLOAT:
            tensor = chain.add("Cast", tensor, to=TensorProto.FLOAT)
        if shape is None or len(shape) != 2:
            tensor = chain.add("Flatten", tensor, axis=1)
        if kind == "class":
            tensor = chain.add("ArgMax", tensor, axis=1, keepdims=0)
            tensor = chain.add("Cast", tensor, to=TensorProto.INT32)
    else:
        if elem_type != TensorProto.INT32:
            tensor = chain.add("Cast", tensor, to=TensorProto.INT32)
        if shape is None or len(shape) != 1:
            tensor = chain.add("Reshape", tensor, constant=("shape", [-1]))
    if chain.nodes:
        chain.end(kind)
        graph.node.extend(chain.nodes)
    else:
        rename(graph, {inner: kind})
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    sizes = [batch.dim_value or batch.dim_param]
    if kind == "scores":
        value = helper.make_tensor_value_info(kind, TensorProto.FLOAT, [*sizes, recipe.classes])
    else:
        value = helper.make_tensor_value_info(kind, TensorProto.INT32, sizes)
    graph.output[0].CopyFrom(value)


class _Chain:
    """Nodes of which each works on the output of the one before; nothing in it has a taken name."""

    def __init__(self, graph: onnx.GraphProto, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.names = Names(graph)
        self._graph = graph
        self._prefix = prefix

    def add(
        self, kind: str, tensor: str, constant: tuple[str, Any] | None = None, **attributes: Any
    ) -> str:
        """Another node. Returns the name of its output."""
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
        """Let the last node's output have this name."""
        self.nodes[-1].output[0] = name


def _list_names(graph: onnx.GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield value.name
    for sparse in graph.sparse_initializer:
        yield sparse.values.name
    for node in graph.node:
        yield node.name
        yield from node.input
        yield from node.output


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    nodes = [node for part in walk_graphs(model.graph) for node in part.node]
    foreign = sorted(
        {f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in DOMAINS}
    )
    if foreign:
        raise UserError(
            f"{path} has operators that are not ONNX's own ({', '.join(foreign[:3])}), which other "
            "engines do not know. Export the model without an engine's own optimisation"
        )
    quantised = sorted(_QUANTISED_OPS.intersection(node.op_type for node in nodes))
    if quantised:
        raise UserError(
            f"{path} is quantised already ({', '.join(quantised)}). Give the float model that it "
            "was made from"
        )


def _use_float32(graph: onnx.GraphProto) -> None:
    """Turn float16 into float32: values stay what they are."""
    from onnx import TensorProto

    for part in walk_graphs(graph):
        for value in (*part.input, *part.output):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for tensor in part.initializer:
            _widen(tensor)
        for node in part.node:
            for attribute in node.attribute:
                _widen(attribute.t)
                if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                    attribute.i = TensorProto.FLOAT


def _widen(tensor: onnx.TensorProto) -> None:
    import numpy as np
    from onnx import TensorProto, numpy_helper

    if tensor.data_type == TensorProto.FLOAT16:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _fix_input_shape(value: onnx.ValueInfoProto, recipe: ModelRecipe) -> None:
    """State the sizes that the file leaves open and the recipe says; of the batch, only a name."""
    from onnx import helper

    tensor = value.type.tensor_type
    batch: Any = tensor.shape.dim[0].dim_value if tensor.HasField("shape") else 0
    side = recipe.image.side
    sizes = [CHANNELS, side, side] if recipe.input.layout == "NCHW" else [side, side, CHANNELS]
    shape = [batch if batch > 0 else "N", *sizes]
    value.CopyFrom(helper.make_tensor_value_info(value.name, tensor.elem_type, shape))


def _keep_only(items: Any, is_wanted: Callable[[Any], bool]) -> None:
    """Remove the elements of a repeated protobuf field that are not wanted."""
    for index in reversed(range(len(items))):
        if not is_wanted(items[index]):
            del items[index]
