"""Read the network of a classifier from its ONNX file, in one form whatever exported it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.models.graph import (
    clear_types,
    keep_only,
    name_nodes,
    prune,
    walk_graphs,
)
from ck_mlperf.models.onnx_facts import CHANNELS, external_files, load_onnx
from ck_mlperf.models.recipe import ModelRecipe

if TYPE_CHECKING:
    import onnx

# A protobuf message, which an ONNX file is, cannot be larger.
MAX_BYTES = (1 << 31) - 1
# The first opset in which Sub and Mul broadcast as numpy does (ONNX's Changelog.md).
_OLDEST_OPSET = 7
# The first with QuantizeLinear per channel, and old enough for TensorRT 8.6.
QDQ_OPSET = 13
# The first IR version in which weights need not be inputs of the graph too.
_OLDEST_IR = 4

# Names of ONNX's own operator set.
DOMAINS = ("", "ai.onnx")
# The operators that do nearly all of a network's work.
HEAVY_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
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


def read_network(path: Path, recipe: ModelRecipe) -> onnx.ModelProto:
    """The network at `path` alone; what it has in float16 becomes float32.

    One input, with the batch size that the file fixes or else 'N', and the one output that the
    recipe names. Weights are inside; there are no functions and no types of intermediate tensors;
    every node has a name.
    Raises UserError where the model has operators that are not ONNX's own, is quantised already,
    or does not fit into one file.
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
    keep_only(graph.input, lambda value: value.name not in weights)
    keep_only(graph.output, lambda value: value.name == recipe.output.name)
    clear_types(graph)
    _use_float32(graph)
    _fix_input_shape(graph.input[0], recipe)
    prune(graph)
    name_nodes(graph)
    return model


def simplify(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network, with batch norms folded into convolutions and constants computed.

    Only those of ONNX Runtime's optimisations that leave ONNX's own operators. path: of the source,
    for messages. Raises UserError where ONNX Runtime cannot read the model.
    """
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="convert.") as folder:
        target = Path(folder) / "simplified.onnx"
        basic = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        open_session(
            path, model, graph_optimization_level=basic, optimized_model_filepath=str(target)
        )
        simple = onnx.load(str(target))
    foreign = {node.domain for part in walk_graphs(simple.graph) for node in part.node}
    if not foreign.issubset(DOMAINS):
        raise RuntimeError(f"onnxruntime {onnxruntime.__version__} put {foreign} into {path}")
    keep_standard_opset(path, simple)
    simple.ir_version = model.ir_version
    clear_types(simple.graph)
    name_nodes(simple.graph)
    return simple


def open_session(path: Path, model: onnx.ModelProto, **options: Any) -> Any:
    """An onnxruntime.InferenceSession of the model on the CPU.

    path: of the source, for messages. options: attributes of onnxruntime.SessionOptions.
    Raises UserError where ONNX Runtime cannot open it.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors only: the rest is for the model's author
    for name, value in options.items():
        setattr(settings, name, value)
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise UserError(f"{path}: ONNX Runtime cannot open it: {error}") from error


def check_size(path: Path, size_bytes: int) -> None:
    """Raises UserError where a model does not fit into one file."""
    if size_bytes > MAX_BYTES:
        raise UserError(
            f"{path}: {size_bytes / (1 << 30):.1f} GiB with its weights; one ONNX file holds less "
            "than 2 GiB. Use a smaller model"
        )


def keep_standard_opset(path: Path, model: onnx.ModelProto) -> int:
    """Drop all opsets but ONNX's own, which every node is in. Returns its version."""
    keep_only(model.opset_import, lambda opset: opset.domain in DOMAINS)
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
            f"{path}: cannot be converted to opset {opset}: {error}. Export it with that opset"
        ) from error
    raised.ir_version = max(model.ir_version, helper.find_min_ir_version_for(raised.opset_import))
    clear_types(raised.graph)
    return raised


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
    """Turn float16 into float32; no value changes."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    for part in walk_graphs(graph):
        attributes = [item for node in part.node for item in node.attribute]
        for value in (*part.input, *part.output):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for tensor in (*part.initializer, *(item.t for item in attributes)):
            if tensor.data_type == TensorProto.FLOAT16:
                values = numpy_helper.to_array(tensor).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        for item in attributes:
            if item.name in ("to", "dtype") and item.i == TensorProto.FLOAT16:
                item.i = TensorProto.FLOAT


def _fix_input_shape(value: onnx.ValueInfoProto, recipe: ModelRecipe) -> None:
    """Write the recipe's sizes into the input's shape; a batch that the file leaves open is 'N'."""
    from onnx import helper

    tensor = value.type.tensor_type
    batch: int = tensor.shape.dim[0].dim_value if tensor.HasField("shape") else 0
    side = recipe.image.side
    sizes = [CHANNELS, side, side] if recipe.input.layout == "NCHW" else [side, side, CHANNELS]
    shape = [batch if batch > 0 else "N", *sizes]
    value.CopyFrom(helper.make_tensor_value_info(value.name, tensor.elem_type, shape))
