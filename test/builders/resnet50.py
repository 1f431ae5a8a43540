"""ResNet-50's graph with the shapes of its weights and not the weights, as exporters write it."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, helper

STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))


class ResNet50:
    """ResNet50(...).graph. Attributes of a class derived from it change the network."""

    stages = STAGES
    strides_in = "3x3"  # v1: "1x1"
    is_tensorflow = False
    classes = 1000
    groups = 1

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.outputs = ["scores"]
        x = self.conv("images", 3, 64, 7, 2)
        x = self.node("MaxPool", self.relu(x), kernel_shape=[3, 3], strides=[2, 2])
        channels = 64
        for count, width, stride in self.stages:
            for block in range(count):
                x = self.block(x, channels, width, 1 if block else stride, block == 0)
                channels = 4 * width
        x = self.node("ReduceMean" if self.is_tensorflow else "GlobalAveragePool", x)
        x = self.node("Squeeze" if self.is_tensorflow else "Flatten", x)
        self.classify(x, channels)
        self.graph = helper.make_graph(self.nodes, "resnet", [], [], self.weights)

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT))
        return name

    def conv(self, x: str, cin: int, cout: int, size: int, stride: int) -> str:
        groups = self.groups if size == 3 else 1
        if self.is_tensorflow and stride == 2:
            x = self.node("Pad", x)
        weights = self.weight(cout, cin // groups, size, size)
        x = self.node("Conv", x, weights, strides=[stride, stride], group=groups)
        if self.is_tensorflow:
            x = self.node("BatchNormalization", x, *(self.weight(cout) for _ in range(4)))
        return x

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def block(self, x: str, cin: int, width: int, stride: int, is_first: bool) -> str:
        first, middle = (stride, 1) if self.strides_in == "1x1" else (1, stride)
        y = self.relu(self.conv(x, cin, width, 1, first))
        y = self.relu(self.conv(y, width, width, 3, middle))
        y = self.conv(y, width, 4 * width, 1, 1)
        if is_first:
            x = self.conv(x, cin, 4 * width, 1, stride)
        return self.relu(self.node("Add", y, x))

    def classify(self, x: str, channels: int) -> None:
        if self.is_tensorflow:
            x = self.node("MatMul", x, self.weight(channels, self.classes))
            x = self.node("Add", x, self.weight(self.classes))
            self.outputs = [self.node("Softmax", x), self.node("ArgMax", x)]
        else:
            weights, bias = self.weight(self.classes, channels), self.weight(self.classes)
            self.outputs = [self.node("Gemm", x, weights, bias, transB=1)]
