"""Make ResNet-50 v1.5 with random weights as an ONNX file, for performance runs without a download.

`python make_resnet50.py OUTPUT_DIR [--seed 0]` writes resnet50_random.onnx and its recipe,
resnet50_random.json. Layers, shapes and so the speed are those of the trained network; the answers
mean nothing, and the recipe says so ("weights": "random").
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ck_mlperf.common.errors import run_main
from ck_mlperf.common.files import write_file

NAME = "resnet50_random"
OPSET = 13
CLASSES = 1000

# (blocks, channels of the 1x1 and 3x3 convolutions, stride of the first block) of each stage:
# He et al., Deep Residual Learning for Image Recognition, 2015, table 1.
STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
EXPANSION = 4

# As MLPerf's ResNet-50 takes its images: pixels 0 to 255 minus ImageNet's mean colour.
RECIPE = {
    "format": 1,
    "name": NAME,
    # Images that need no download: the time that an image takes does not depend on its content.
    "dataset": "digits",
    "image": {"side": 224, "crop": 0.875, "interpolation": "area", "channels": "rgb"},
    "mean": [123.68, 116.78, 103.94],
    "scale": [1.0, 1.0, 1.0],
    "classes": CLASSES,
    "weights": "random",
}
PIXEL_STD = 70.0  # about that of a photograph; brings the input of the first layer to unit size


class GraphBuilder:
    """Collects nodes and weights; every method returns the name of the tensor that it adds."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.Generator(np.random.PCG64(seed))
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def weight(self, name: str, shape: tuple[int, ...], std: float) -> str:
        values = self.random.standard_normal(shape, dtype=np.float32) * np.float32(std)
        if len(shape) > 1:
            # Filters of mean 0: otherwise what all images have in common would dominate.
            values -= values.mean(axis=tuple(range(1, len(shape))), keepdims=True)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(
        self, x: str, name: str, channels: tuple[int, int], size: int, stride: int, gain: float
    ) -> str:
        """A convolution from channels[0] to channels[1], with the bias that batch norm leaves.

        Weights by He et al., Delving Deep into Rectifiers, 2015: variance gain / fan-in.
        """
        cin, cout = channels
        fan_in = cin * size * size
        return self.node(
            "Conv",
            name,
            x,
            self.weight(f"{name}.weight", (cout, cin, size, size), float(np.sqrt(gain / fan_in))),
            self.weight(f"{name}.bias", (cout,), 0.01),
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
        )

    def bottleneck(self, x: str, name: str, cin: int, width: int, stride: int) -> str:
        """1x1, 3x3, 1x1 and the skip connection. v1.5 strides in the 3x3, v1 in the first 1x1."""
        cout = width * EXPANSION
        y = self.conv(x, f"{name}.conv1", (cin, width), 1, 1, 2.0)
        y = self.node("Relu", f"{name}.relu1", y)
        y = self.conv(y, f"{name}.conv2", (width, width), 3, stride, 2.0)
        y = self.node("Relu", f"{name}.relu2", y)
        # A small last gain: otherwise the sum would double the signal in each of 16 blocks.
        y = self.conv(y, f"{name}.conv3", (width, cout), 1, 1, 0.2)
        if cin != cout:
            x = self.conv(x, f"{name}.shortcut", (cin, cout), 1, stride, 1.0)
        return self.node("Relu", f"{name}.relu3", self.node("Add", f"{name}.sum", y, x))


def build_resnet50(seed: int) -> onnx.ModelProto:
    """ResNet-50 v1.5: `input` float32 [N, 3, 224, 224] to `output` float32 scores [N, 1000].

    The same seed and numpy give the same bytes.
    """
    graph = GraphBuilder(seed)
    x = graph.conv("input", "stem", (3, 64), 7, 2, 2.0 / PIXEL_STD**2)
    x = graph.node("Relu", "stem.relu", x)
    x = graph.node(
        "MaxPool", "stem.pool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )
    channels = 64
    for stage, (blocks, width, first_stride) in enumerate(STAGES, 1):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            x = graph.bottleneck(x, f"stage{stage}.block{block}", channels, width, stride)
            channels = width * EXPANSION
    x = graph.node("Flatten", "features", graph.node("GlobalAveragePool", "pool", x), axis=1)
    classifier = graph.weight("classifier.weight", (CLASSES, channels), 1.0)
    bias = graph.weight("classifier.bias", (CLASSES,), 0.01)
    graph.node("Gemm", "output", x, classifier, bias, transB=1)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            NAME,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 224, 224])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", CLASSES])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="make_resnet50",
    )
    onnx.checker.check_model(model)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    model = build_resnet50(options.seed)
    # The recipe first: without it the model would be an unknown one.
    recipe = json.dumps(RECIPE, indent=2) + "\n"
    write_file(options.output_dir / f"{NAME}.json", recipe)
    write_file(options.output_dir / f"{NAME}.onnx", model.SerializeToString())
    print(options.output_dir / f"{NAME}.onnx")


if __name__ == "__main__":
    run_main(main)
