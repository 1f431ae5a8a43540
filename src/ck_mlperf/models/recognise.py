"""Recognise ResNet-50 by its graph, whatever exported it and whatever it is called.

The structure is that of table 1 of He et al., Deep Residual Learning for Image Recognition, 2015.
In v1 the first 1x1 convolution of a strided block has the stride, in v1.5 the 3x3 has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

RESNET50_V1_5 = "resnet50-v1.5"
RESNET50_V1 = "resnet50-v1"
NETWORKS = (RESNET50_V1_5, RESNET50_V1)
"""The networks that are recognised."""

# (blocks, channels of the 1x1 and 3x3 convolutions, stride of the first block) of each stage.
_STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
_EXPANSION = 4
_CLASSES = (1000, 1001)  # 1001: with 'background', as TensorFlow's have it
# What changes no structure. The first input is the data.
_PASSED = frozenset(
    {
        "ArgMax",
        "BatchNormalization",
        "Cast",
        "Clip",
        "DequantizeLinear",
        "Dropout",
        "Flatten",
        "Identity",
        "LogSoftmax",
        "Pad",
        "QuantizeLinear",
        "Relu",
        "Reshape",
        "Softmax",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
_ELEMENTWISE = frozenset(("Add", "Div", "Mul", "Sub", "Sum"))
_SUMS = ("Add", "Sum")
_POOLS = ("AveragePool", "GlobalAveragePool", "ReduceMean")


def recognise(graph: onnx.GraphProto, output: str) -> str | None:
    """One of NETWORKS; None: another network. output: the name of the output that is read."""
    try:
        return _match_resnet50(_Walk(graph), output)
    except _OtherNetworkError:
        return None


class _OtherNetworkError(Exception):
    """The graph is not that of the network."""


class _Walk:
    """The graph, read from its output to its input."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._made_by: dict[str, onnx.NodeProto] = {
            name: node for node in graph.node for name in node.output if name
        }
        self._shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        for node in graph.node:  # constants that nodes make of constants: dequantised weights
            if node.op_type == "Constant":
                for item in node.attribute:
                    self._shapes[node.output[0]] = tuple(item.t.dims)
            elif node.op_type in _PASSED and node.input[0] in self._shapes:
                shape = self._shapes[node.input[0]]
                for item in node.attribute:
                    if node.op_type == "Transpose" and item.name == "perm":
                        shape = tuple(shape[axis] for axis in item.ints)
                self._shapes[node.output[0]] = shape

    def find_node(self, tensor: str, *kinds: str) -> onnx.NodeProto:
        """The node of these kinds that makes a tensor, but for what changes no structure."""
        node = self.find_origin(tensor)
        if node is None or node.op_type not in kinds:
            raise _OtherNetworkError
        return node

    def find_origin(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes a tensor, but for what changes no structure; None: the input."""
        for _ in self._made_by:  # a graph that is no model may have a circle
            node = self._made_by.get(tensor)
            if node is None:
                return None
            data = self.list_data(node)
            is_passed = node.op_type in _PASSED or (node.op_type in _ELEMENTWISE and len(data) == 1)
            if not is_passed or not data:
                return node
            tensor = data[0]
        raise _OtherNetworkError

    def list_data(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of a node that are no constants."""
        return [name for name in node.input if name and name not in self._shapes]

    def find_conv(self, tensor: str, shape: tuple[int, ...]) -> tuple[str, int]:
        """The input and the stride of the convolution with weights of `shape`."""
        node = self.find_node(tensor, "Conv")
        values = {item.name: list(item.ints) or item.i for item in node.attribute}
        strides = values.get("strides", [1, 1])
        if (
            self._shapes.get(node.input[1]) != shape
            or values.get("group", 1) != 1
            or values.get("dilations", [1, 1]) != [1, 1]
            or strides not in ([1, 1], [2, 2])
        ):
            raise _OtherNetworkError
        return node.input[0], strides[0]

    def find_classifier(self, tensor: str, features: int) -> str:
        """The input of the layer that makes scores of `features`."""
        node = self.find_node(tensor, "Gemm", "MatMul", "Conv")
        shape = self._shapes.get(node.input[1], ())
        sizes = sorted(size for size in shape if size != 1)
        if sizes not in [[classes, features] for classes in _CLASSES]:
            raise _OtherNetworkError
        return str(node.input[0])


def _match_resnet50(walk: _Walk, output: str) -> str:
    _, last_width, _ = _STAGES[-1]
    tensor = walk.find_classifier(output, last_width * _EXPANSION)
    tensor = walk.find_node(tensor, *_POOLS).input[0]
    strided = set()
    for width, channels, stride, is_first in _list_blocks():
        tensor, strides = _match_block(walk, tensor, width, channels, stride, is_first)
        if stride > 1:
            strided.add(strides)
    pool = walk.find_node(tensor, "MaxPool")
    tensor, stride = walk.find_conv(pool.input[0], (64, 3, 7, 7))
    if stride != 2 or walk.find_origin(tensor) is not None:
        raise _OtherNetworkError
    if strided == {(1, 2)}:
        return RESNET50_V1_5
    if strided == {(2, 1)}:
        return RESNET50_V1
    raise _OtherNetworkError


def _list_blocks() -> Iterator[tuple[int, int, int, bool]]:
    """(width, input channels, stride, whether it is its stage's first) of the blocks, last first.

    The first block of a stage has a convolution in its skip connection.
    """
    blocks, channels = [], 64
    for count, width, stride in _STAGES:
        for block in range(count):
            blocks.append((width, channels, 1 if block else stride, block == 0))
            channels = width * _EXPANSION
    return reversed(blocks)


def _match_block(
    walk: _Walk, tensor: str, width: int, channels: int, stride: int, is_first: bool
) -> tuple[str, tuple[int, int]]:
    """The block's input, and the strides of its first 1x1 and its 3x3 convolution."""
    branches = walk.list_data(walk.find_node(tensor, *_SUMS))
    if len(branches) != 2:
        raise _OtherNetworkError
    wide = width * _EXPANSION
    for main, skip in (branches, branches[::-1]):
        try:
            inner, last_stride = walk.find_conv(main, (wide, width, 1, 1))
            inner, middle_stride = walk.find_conv(inner, (width, width, 3, 3))
        except _OtherNetworkError:
            continue
        begin, first_stride = walk.find_conv(inner, (width, channels, 1, 1))
        if is_first:
            skip, skip_stride = walk.find_conv(skip, (wide, channels, 1, 1))
            if skip_stride != stride:
                raise _OtherNetworkError
        strides = (first_stride, middle_stride)
        if (
            last_stride != 1
            or first_stride * middle_stride != stride
            or walk.find_origin(skip) is not walk.find_origin(begin)
        ):
            raise _OtherNetworkError
        return begin, strides
    raise _OtherNetworkError
