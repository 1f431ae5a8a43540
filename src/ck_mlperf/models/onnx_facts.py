"""What an ONNX file itself says about the classifier in it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import MOST_ONNX_BYTES, read_regular
from ck_mlperf.models.model_file import State, read_states
from ck_mlperf.models.recognise import recognise

if TYPE_CHECKING:
    import onnx

CHANNELS = 3
_QUANTISED = re.compile(r"QuantizeLinear|QLinear|ConvInteger|MatMulInteger")

# How files begin that people give by mistake in place of an ONNX file.
_LOOKALIKES = (
    (b"<!doctype html", "an HTML page: the download gave a web page in place of the file"),
    (b"<html", "an HTML page: the download gave a web page in place of the file"),
    (b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull` to get the file itself"),
    (b"PK\x03\x04", "a zip archive (as PyTorch checkpoints are): export the model to ONNX"),
    (b"\x89HDF", "an HDF5 file (as Keras weights are): convert the model to ONNX"),
    (b"\x1f\x8b", "a gzip file: unpack it first"),
    (b"ptrt", "a TensorRT plan: give the ONNX file that it was made from"),
    (b"ftrt", "a TensorRT plan: give the ONNX file that it was made from"),
    (b"{", "JSON text: give the .onnx file, its recipe is found beside it"),
)


def load_onnx(path: Path, content: bytes | None = None) -> onnx.ModelProto:
    """The model at `path`, without its external data, which must be in the model's folder.

    content: of the file, where it was read before.
    Raises UserError that says what the file looks like if it is not a complete ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        content = read_regular(path, MOST_ONNX_BYTES) if content is None else content
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path}: no such file. Give the path of an .onnx file") from None
    looks = _describe_lookalike(content[:512])
    try:
        # What recurses through the model comes to an end: protobuf takes at most 100 levels.
        model = onnx.load_model_from_string(content)
    except DecodeError:
        looks = looks or "an ONNX file that was cut off or damaged, or no ONNX file at all"
        raise UserError(f"{path}: cannot be read, it looks like {looks}") from None
    if looks or not model.graph.node or not model.opset_import:
        raise UserError(
            f"{path}: no ONNX model, it looks like {looks or 'a file of another kind, or cut off'}"
        )
    if any(isinstance(text, bytes) for text in _list_texts(model.graph)):  # bytes are no UTF-8
        raise UserError(f"{path}: a name in it is no text: the file is damaged. Get it again")
    for location in external_files(model):
        _check_external(path, location)
    return model


def _list_texts(graph: onnx.GraphProto) -> Iterator[str | bytes]:
    """The names in a graph; protobuf gives bytes for those that are no text."""
    for node in graph.node:
        yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
    for named in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        yield named.name


def external_files(model: onnx.ModelProto) -> list[str]:
    """The files with the model's external weights, relative to its folder, as it spells them."""
    from onnx import TensorProto

    return sorted(
        {
            entry.value
            for tensor in _all_tensors(model)
            if tensor.data_location == TensorProto.EXTERNAL
            for entry in tensor.external_data
            if entry.key == "location"
        }
    )


def find_files(path: Path) -> tuple[list[str], list[State]]:
    """(the files with the external weights of the model at `path`, the state of all its files)

    The state is from before any file was read, so that whoever writes to them meanwhile or later
    gives them another one.
    """
    own = read_states(path) if path.is_file() else []
    external = external_files(load_onnx(path))
    return external, own + read_states(path, external)[1:]


def read_onnx_facts(path: Path, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a recipe ('input.name', ...) that the ONNX file determines, with their values.

    stated: what the recipe's JSON says. It chooses among several outputs, and gives the layout
    where the shape does not. Raises UserError where the model is not an image classifier.
    """
    graph = load_onnx(path).graph
    facts = _read_input(path, graph, stated)
    facts.update(_read_output(path, graph, stated.get("output.name")))
    facts["network"] = recognise(graph, facts["output.name"])
    precision = _find_precision(graph)
    return facts if precision is None else facts | {"precision": precision}


def _read_input(path: Path, graph: onnx.GraphProto, stated: Mapping[str, Any]) -> dict[str, Any]:
    from onnx import TensorProto

    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UserError(f"{path}: want a model of one input, the images; inputs: {names}")
    tensor = inputs[0].type.tensor_type
    dtypes = {
        TensorProto.FLOAT: "float32",
        TensorProto.FLOAT16: "float16",
        TensorProto.INT8: "int8",
        TensorProto.UINT8: "uint8",
    }
    if tensor.elem_type not in dtypes:
        kind = TensorProto.DataType.Name(tensor.elem_type)
        raise UserError(
            f"{path}: input {inputs[0].name} is {kind}; want one of {', '.join(dtypes.values())}"
        )
    facts: dict[str, Any] = {"input.name": inputs[0].name, "input.dtype": dtypes[tensor.elem_type]}
    if not tensor.HasField("shape"):
        return facts
    shape = _sizes(tensor.shape)
    where = f"{path}: input {inputs[0].name} of shape {_show(tensor.shape)}"
    if len(shape) != 4:
        raise UserError(f"{where}: want four axes, [N, 3, side, side] or [N, side, side, 3]")
    if shape[0] is not None:
        facts["max_batch"] = shape[0]
    planar, interleaved = shape[1] in (CHANNELS, None), shape[3] in (CHANNELS, None)
    if not planar and not interleaved:
        raise UserError(f"{where}: no axis of {CHANNELS} colours")
    if planar != interleaved:
        facts["input.layout"] = "NCHW" if planar else "NHWC"
    elif CHANNELS in (shape[1], shape[3]) and shape[1] != shape[3]:
        facts["input.layout"] = "NCHW" if shape[1] == CHANNELS else "NHWC"
    layout = facts.get("input.layout", stated.get("input.layout"))
    if layout is not None:
        height, width = shape[2:] if layout == "NCHW" else shape[1:3]
        if height is not None and width is not None:
            if height != width:
                raise UserError(f"{where}: want square images")
            facts["image.side"] = height
    return facts


def _read_output(path: Path, graph: onnx.GraphProto, wanted: str | None) -> dict[str, Any]:
    readings = {value.name: _read_one_output(value) for value in graph.output}
    if wanted is not None:
        chosen = [name for name in readings if name == wanted]
    elif len(readings) == 1:
        chosen = list(readings)
    else:
        chosen = [name for name, facts in readings.items() if "classes" in facts]
    if len(chosen) != 1:
        names = ", ".join(readings)
        wish = f"output.name = {wanted!r} is not there" if wanted else "name one in output.name"
        raise UserError(
            f"{path} has the outputs {names}: {wish}. Correct {path.with_suffix('.json')}"
        )
    return {"output.name": chosen[0], **readings[chosen[0]]}


def _read_one_output(value: onnx.ValueInfoProto) -> dict[str, Any]:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    integers = (TensorProto.INT32, TensorProto.INT64)
    if tensor.elem_type in integers:
        return {"output.kind": "class"}
    if tensor.elem_type not in floats:
        return {}
    sizes = _sizes(tensor.shape)[1:]
    wide = [size for size in sizes if size != 1]
    if len(wide) == 1 and wide[0] is not None:
        return {"output.kind": "scores", "classes": wide[0]}
    return {"output.kind": "scores"}


def _find_precision(graph: onnx.GraphProto) -> str | None:
    """int8 or fp16, where the network was quantised or has most of its weights in float16."""
    from onnx import TensorProto

    if any(_QUANTISED.search(node.op_type) for node in graph.node):
        return "int8"
    sizes: dict[int, int] = {TensorProto.FLOAT: 0, TensorProto.FLOAT16: 0}
    for tensor in _tensors(graph):
        if tensor.data_type in sizes:
            sizes[tensor.data_type] += math.prod(tensor.dims)
    return "fp16" if sizes[TensorProto.FLOAT16] > sizes[TensorProto.FLOAT] else None


def _all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _tensors(model.graph)
    for function in model.functions:
        yield from _attribute_tensors(function.node)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _attribute_tensors(graph.node)


def _attribute_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from _tensors(graph)


def _check_external(path: Path, location: str) -> None:
    folder, place = path.resolve().parent, PurePath(location)
    target = (folder / place).resolve()
    if place.is_absolute() or ".." in place.parts or not target.is_relative_to(folder):
        raise UserError(
            f"{path} keeps weights in {location!r}, which may lead outside its own folder: "
            "refused. Save the model with its weights inside or beside it"
        )
    if not target.is_file():
        raise UserError(f"{path} keeps weights in {location!r}, which is not beside it")


def _describe_lookalike(head: bytes) -> str | None:
    if not head:
        return "an empty file"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, meaning in _LOOKALIKES:
        if start.startswith(magic.lower()):
            return meaning
    return "a TensorFlow Lite model: convert it to ONNX" if head[4:8] == b"TFL3" else None


def _sizes(shape: onnx.TensorShapeProto) -> list[int | None]:
    return [dim.dim_value if dim.dim_value > 0 else None for dim in shape.dim]


def _show(shape: onnx.TensorShapeProto) -> str:
    return str([dim.dim_value or dim.dim_param or "?" for dim in shape.dim]).replace("'", "")
