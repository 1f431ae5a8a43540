"""Turn a float32 network into a float16 or an int8 one.

In both the types are in the ONNX file itself, in ONNX's own operators, so that every engine takes
the same file: TensorRT 8.6 to 11 (11 has no other way), TensorRT for RTX, ONNX Runtime.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.models.compose import (
    DOMAINS,
    QDQ_OPSET,
    Names,
    clear_types,
    keep_standard_opset,
    name_nodes,
    prune,
    raise_opset,
    rename,
    replace_nodes,
    sort_nodes,
    walk_graphs,
)
from ck_mlperf.models.recipe import ModelRecipe, normalise

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

# What the work of a network is: these have to be in the wanted type.
_HEAVY_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# What computes in int8 where its input is int8, and without which the layer before it would give
# float32 to nobody but it.
_POOLING_OPS = ("AveragePool", "GlobalAveragePool", "ReduceMean")
# What stays in float32 beside what the library itself leaves there: sums over many elements,
# exponentials and small variances leave float16's range or its precision.
_FLOAT32_OPS = (
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
)
_CONVERTING_OPS = ("Cast", "Constant", "DequantizeLinear", "Identity", "QuantizeLinear")
_FLOAT16_MAX = 65504.0

# Of the percentiles 99.9 to 99.999, mean of the images' maxima and least squared error, the
# one that most often agrees with float32 on 500 images of ImageNet, over ResNet-50, MobileNet and
# SqueezeNet together. It leads by a few images: a choice among near equals.
_PERCENTILE = 99.999
CALIBRATION_METHOD = f"percentile-{_PERCENTILE},bias-correction"
_INT8_MAX = 127
_BINS = 4096


def simplify(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network, with batch norms folded into convolutions and constants computed.

    ONNX Runtime does it, with the optimisations that end in ONNX's own operators. path: of the
    source, for messages. Raises UserError where ONNX Runtime cannot read the model.
    """
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="convert.") as folder:
        target = Path(folder) / "simplified.onnx"
        options = _session_options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target)
        _open_session(path, model, options)
        simple = onnx.load(str(target))
    foreign = {node.domain for part in walk_graphs(simple.graph) for node in part.node}
    if not foreign.issubset(DOMAINS):
        raise RuntimeError(f"onnxruntime {onnxruntime.__version__} put {foreign} into {path}")
    keep_standard_opset(path, simple)
    simple.ir_version = model.ir_version
    clear_types(simple.graph)
    name_nodes(simple.graph)
    return simple


def use_float16(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """The network in float16, input and output too; softmax and the like stay in float32.

    Where a softmax is last its float32 is the output. path: of the source, for messages.
    Raises UserError where a weight of a heavy layer is beyond float16.
    """
    from onnx import TensorProto
    from onnxruntime.transformers import float16

    model = simplify(path, model)
    wide = _find_wide_nodes(path, model.graph)
    original = _separate_names(model.graph)
    half: onnx.ModelProto = float16.convert_float_to_float16(
        model,
        op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *_FLOAT32_OPS],
        node_block_list=wide,
    )
    clear_types(half.graph)
    sort_nodes(half.graph)  # the library puts its casts at the end
    _skip_needless_casts(half.graph, wide)
    prune(half.graph)
    taken = Names(half.graph)
    rename(half.graph, {name: old for name, old in original.items() if old not in taken})
    name_nodes(half.graph)
    for node, dtype in _heavy_types(half):
        if dtype == TensorProto.FLOAT:
            raise UserError(f"{path}: {node.op_type} {node.name} cannot be computed in float16")
    return half


def list_float32_nodes(model: onnx.ModelProto) -> list[str]:
    """The nodes of a converted model that are to be computed in float32, by name.

    For an engine that chooses types itself and takes those in the file for hints: what a float16
    file has left in float32, and of an int8 file what sums or takes exponentials unquantised.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}
    quantised = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    is_half = onnx.TensorProto.FLOAT16 in types.values()
    return [
        node.name
        for node in model.graph.node
        if types.get(node.output[0]) == onnx.TensorProto.FLOAT
        and node.op_type not in _CONVERTING_OPS
        and (is_half or (node.op_type in _FLOAT32_OPS and node.input[0] not in quantised))
    ]


@dataclasses.dataclass
class _Statistics:
    """What calibration learns of one tensor.

    counts: int64 [_BINS], how many absolute values lie in each of as many equal parts of 0 to top.
    sums: float64 [channels], the sum of each channel's mean over the images so far.
    """

    top: float
    counts: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """values: [1, channels, ...], of one image."""
        import numpy as np

        absolute = np.abs(values).ravel()
        highest = float(absolute.max())
        if not np.isfinite(highest):
            raise FloatingPointError
        self.sums += values.reshape(len(self.sums), -1).mean(axis=1, dtype=np.float64)
        while highest > self.top:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros_like(merged)])
            self.top *= 2
        absolute *= _BINS / self.top
        bins = np.minimum(absolute.astype(np.int32), _BINS - 1)
        self.counts += np.bincount(bins, minlength=_BINS)

    def scale(self) -> float:
        """The step of int8 with which all but the largest values, by _PERCENTILE, are in reach."""
        import numpy as np

        used = np.flatnonzero(self.counts)
        if not used.any():  # all in the first part: a tensor of nothing but zeros
            return 1.0
        wanted = self.counts.sum() * (_PERCENTILE / 100)
        last = int(np.searchsorted(self.counts.cumsum(), wanted)) or int(used[-1])
        return (last + 1) * self.top / _BINS / _INT8_MAX


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A heavy node whose weights are constant: its place among the nodes, its output channels."""

    index: int
    weights: str
    axis: int
    is_linear: bool  # output = weights * input + bias, with a bias of its own or none


def use_int8(
    path: Path,
    model: onnx.ModelProto,
    recipe: ModelRecipe,
    images: npt.NDArray[np.uint8],
    show_progress: bool = False,
) -> onnx.ModelProto:
    """The network with QuantizeLinear/DequantizeLinear around what is to be computed in int8.

    Symmetric: every zero point is 0. Inputs of Conv, Gemm, MatMul and of the pooling at the end per
    tensor, up to a percentile of what `images` give; weights per output channel. Outputs and biases
    stay float32: the next layer quantises what it reads, so TensorRT fuses what lies between. An
    Add reads one int8 input (the way around of a residual block), never two, which leaves the other
    to be fused with the convolution before it.
    What rounding the weights adds to the mean of a layer's output is taken off its bias (Nagel et
    al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, with the
    means that calibration saw): without it MobileNet loses 1.6% of its accuracy.

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
            f"{path} has no {', '.join(_HEAVY_OPS)} with constant weights: nothing to quantise"
        )
    reads = _find_reads(model.graph, layers)
    statistics = _calibrate(path, model, recipe, list(reads), images, show_progress)
    _insert_quantisation(model.graph, layers, reads, statistics, len(images))
    prune(model.graph)
    return model


def _session_options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: the rest is for the model's author
    return options


def _open_session(path: Path, model: onnx.ModelProto, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # ONNX Runtime's errors have no common base but Exception.
        raise UserError(f"{path}: ONNX Runtime cannot open it: {error}") from error


def _find_wide_nodes(path: Path, graph: onnx.GraphProto) -> list[str]:
    """The nodes with a constant beyond float16, which have to stay in float32."""
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
            if node.op_type in _HEAVY_OPS:
                raise UserError(
                    f"{path}: {node.op_type} {node.name} has weights beyond {_FLOAT16_MAX:.0f}, "
                    "the largest number in float16. Convert to fp32, or to int8"
                )
            found.append(node.name)
    return found


def _separate_names(graph: onnx.GraphProto) -> dict[str, str]:
    """Rename tensors called like another plus '_...', for a library that makes names in that way.

    Input and output keep theirs. Returns {new name: old name}.
    """
    names = Names(graph)
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
    """Pass float32 on as it is where it is cast to float16 and back, which loses precision.

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
        producers[output.name].output[0] = Names(graph).new(f"{output.name}.float16")
        rename(graph, {source: output.name})


def _heavy_types(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, int]]:
    """The heavy nodes with the type of their outputs."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    for node in model.graph.node:
        if node.op_type in _HEAVY_OPS:
            yield node, types.get(node.output[0], onnx.TensorProto.UNDEFINED)


def _find_layers(graph: onnx.GraphProto) -> list[_Layer]:
    from onnx import TensorProto

    constants = {
        tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT
    }
    layers = []
    for index, node in enumerate(graph.node):
        weights = constants.get(node.input[1]) if node.op_type in _HEAVY_OPS else None
        if weights is None or node.input[0] in constants:
            continue
        values = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Conv":
            layers.append(_Layer(index, weights.name, 0, True))
        elif node.op_type == "Gemm":
            if "transA" in values and values["transA"].i:
                continue
            axis = 0 if "transB" in values and values["transB"].i else 1
            is_plain = all(values[key].f == 1 for key in ("alpha", "beta") if key in values)
            layers.append(_Layer(index, weights.name, axis, is_plain))
        elif node.op_type == "MatMul" and len(weights.dims) == 2:
            layers.append(_Layer(index, weights.name, 1, False))
    return layers


def _find_reads(graph: onnx.GraphProto, layers: list[_Layer]) -> dict[str, list[tuple[int, int]]]:
    """The tensors to quantise: {tensor: [(index of a node that reads it, which input)]}."""
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
        # The way around of a block: what layers read anyway, else the output of one of the two.
        known = [name for name in node.input if name in reads]
        if known:
            way_around = min(known, key=made_at.__getitem__)
        elif convolutions.issuperset(node.input):
            way_around = max(node.input, key=made_at.__getitem__)
        else:
            continue
        position = list(node.input).index(way_around)
        reads.setdefault(way_around, []).append((index, position))
    return reads


def _calibrate(
    path: Path,
    model: onnx.ModelProto,
    recipe: ModelRecipe,
    tensors: list[str],
    images: npt.NDArray[np.uint8],
    show_progress: bool,
) -> dict[str, _Statistics]:
    """Run the images through the network, one at a time, and look at the tensors."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper
    from tqdm import tqdm

    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    entry = model.graph.input[0]
    names = [name for name in tensors if name != entry.name]
    del observed.graph.output[:]
    observed.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    session = _open_session(path, observed, _session_options())
    batch = entry.type.tensor_type.shape.dim[0].dim_value or 1
    dtype = np.uint8 if recipe.input.dtype == "uint8" else np.float32
    recipe = dataclasses.replace(
        recipe, input=dataclasses.replace(recipe.input, dtype=np.dtype(dtype).name)
    )
    found: dict[str, _Statistics] = {}
    hide = not (show_progress and sys.stderr.isatty())
    for image in tqdm(images, desc="calibration", unit="image", disable=hide):
        rows = np.repeat(normalise(image[None], recipe), batch, axis=0)
        values = dict(zip(names, session.run(names, {entry.name: rows}), strict=True))
        values[entry.name] = rows
        for name in tensors:
            value = values[name][:1]
            if name not in found:
                channels = value.shape[1] if value.ndim > 1 else 1
                top = float(np.abs(value).max()) or 1e-6
                found[name] = _Statistics(top, np.zeros(_BINS, np.int64), np.zeros(channels))
            try:
                found[name].add(value)
            except FloatingPointError:
                raise UserError(
                    f"{path}: {name} is infinite, or no number, for an image of the calibration "
                    "set: int8 cannot hold it. Check mean and scale in the model's recipe"
                ) from None
    return found


def _insert_quantisation(
    graph: onnx.GraphProto,
    layers: list[_Layer],
    reads: Mapping[str, list[tuple[int, int]]],
    statistics: Mapping[str, _Statistics],
    count: int,
) -> None:
    """Put the pairs of QuantizeLinear and DequantizeLinear where they belong."""
    import numpy as np
    from onnx import helper, numpy_helper

    names = Names(graph)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    before: dict[int, list[onnx.NodeProto]] = {}

    def add_constant(values: Any, wish: str) -> str:
        name = names.new(wish)
        graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add_pair(tensor: str, scale: Any, index: int, **attributes: Any) -> str:
        """Quantise `tensor` before the node at `index`. Returns the name of what comes back."""
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

    nodes = list(graph.node)
    for layer in layers:
        node = nodes[layer.index]
        weights = numpy_helper.to_array(constants[layer.weights])
        input_scale = statistics[node.input[0]].scale()
        channels_first = np.moveaxis(weights, layer.axis, 0)
        bias_name = node.input[2] if len(node.input) > 2 else ""
        bias = np.zeros(len(channels_first), np.float32)
        if bias_name in constants:
            bias = numpy_helper.to_array(constants[bias_name])
        scale = _weight_scale(channels_first, bias, input_scale)
        steps = scale.reshape(-1, *[1] * (weights.ndim - 1))
        rounded = np.clip(np.rint(channels_first / steps), -_INT8_MAX, _INT8_MAX) * steps
        has_plain_bias = not bias_name or bias_name in constants
        if layer.is_linear and has_plain_bias and bias.shape == (len(channels_first),):
            mean = statistics[node.input[0]].sums / count
            error = _mean_output(channels_first - rounded, mean, node.op_type == "Conv")
            if error is not None:
                corrected = add_constant((bias + error).astype(np.float32), f"{node.name}.bias")
                node.input[:] = [*node.input[:2], corrected]
        node.input[1] = add_pair(layer.weights, scale, layer.index, axis=layer.axis)
    for tensor, uses in reads.items():
        back = add_pair(tensor, statistics[tensor].scale(), min(uses)[0])
        for index, position in uses:
            nodes[index].input[position] = back
    ordered = [new for index, node in enumerate(nodes) for new in (*before.get(index, ()), node)]
    replace_nodes(graph, ordered)


def _weight_scale(
    weights: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], input_scale: float
) -> npt.NDArray[np.float32]:
    """The step of each output channel, weights [channels, ...], so that its largest one is 127.

    ONNX Runtime rounds the bias to int32 in steps of input scale times weight scale: in a channel
    that is all but dead that would overflow, so its steps are larger, which costs nothing.
    """
    import numpy as np

    largest = np.abs(weights).reshape(len(weights), -1).max(axis=1)
    scale = np.where(largest > 0, largest / _INT8_MAX, 1.0)
    if bias.shape == scale.shape:
        scale = np.maximum(scale, np.abs(bias) / (input_scale * 2.0**30))
    # The smallest normal number: less would divide by 0 where denormals are flushed.
    steps: npt.NDArray[np.float32] = np.maximum(scale, np.finfo(np.float32).tiny, dtype=np.float32)
    return steps


def _mean_output(
    weights: npt.NDArray[Any], mean: npt.NDArray[np.float64], is_convolution: bool
) -> npt.NDArray[Any] | None:
    """The mean output of a layer, [output channels], for inputs of `mean`, [input channels].

    weights: [output channels, input channels of a group, ...]. As if no border was padded.
    """
    weights = weights.reshape(*weights.shape[:2], -1).sum(axis=2)
    groups, rest = divmod(len(mean), weights.shape[1])
    if rest or len(weights) % groups or (groups > 1 and not is_convolution):
        return None
    grouped = weights.reshape(groups, -1, weights.shape[1])
    result: npt.NDArray[Any] = (grouped @ mean.reshape(groups, -1, 1)).ravel()
    return result
