# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "numpy==2.4.6",
#     "onnx==1.23.2",
#     "opencv-python-headless==5.0.0.93",
#     "scikit-learn==1.9.1",
#     "torch==2.13.0",
# ]
# ///
"""Train the digits model and write digits.onnx and digits.json beside this script.

Needed only to train the model again: PyTorch is not a dependency of the project. From the checkout:

    PYTHONPATH=src python package/model-onnx-digits/train.py

The network sees only the training split, preprocessed as in a benchmark. The number of epochs is
fixed in advance: the held-out images decide nothing.
"""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, max_pool2d
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ck_mlperf.common.files import write_file
from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.models.recipe import InputSpec, ModelRecipe, OutputSpec, normalise

HERE = Path(__file__).resolve().parent
MAKE_DIGITS = HERE.parent / "dataset-digits" / "make_digits.py"
RECIPE = ModelRecipe(
    name="digits",
    dataset="digits",
    input=InputSpec("image", "NCHW", "float32"),
    image=ImageRecipe(side=28, crop=0.875, interpolation="area", channels="rgb"),
    mean=(127.5, 127.5, 127.5),  # to -1 .. 1
    scale=(1 / 127.5, 1 / 127.5, 1 / 127.5),
    output=OutputSpec("scores", "scores"),
    classes=10,
    labels_offset=0,
    max_batch=None,
    weights="trained",
)
WIDTHS = (3, 24, 48, 96)  # channels before and after each block
EPOCHS = 60
BATCH = 32
PEAK_LEARNING_RATE = 4e-3
SEED = 0


class Network(nn.Module):  # type: ignore[misc]
    """Blocks of convolution, ReLU and max pooling, then the mean over the plane and a dense layer.

    float32 [n, 3, 28, 28] to scores [n, 10].
    """

    def __init__(self) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(WIDTHS))
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs)
        self.dense = nn.Linear(WIDTHS[-1], RECIPE.classes)

    def forward(self, x: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = max_pool2d(norm(convolution(x)).relu(), 2)
        return self.dense(x.mean(dim=(2, 3)))


def load_split(split: str) -> tuple[Tensor, Tensor]:
    """The input tensor and the labels of a split, made and preprocessed as users do it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "images")
        subprocess.run([sys.executable, MAKE_DIGITS, source, "--split", split], check=True)
        made = preprocess(source, Path(folder, "preprocessed"), RECIPE.image, dataset="digits")
        inputs = normalise(made.images, RECIPE)
    return torch.from_numpy(inputs), torch.from_numpy(made.labels).long()


def distort(images: Tensor) -> Tensor:
    """Each image rotated, scaled, stretched, slanted and moved a little, at random."""
    n = len(images)

    def spread(limit: float) -> Tensor:
        return (torch.rand(n) * 2 - 1) * limit

    angle, slant = spread(math.radians(12)), spread(0.15)
    width, height = 1 + spread(0.12), 1 + spread(0.12)
    rows = [
        torch.stack([width * angle.cos(), slant - angle.sin(), spread(0.1)], dim=1),
        torch.stack([angle.sin(), height * angle.cos(), spread(0.1)], dim=1),
    ]
    grid = affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def train(inputs: Tensor, labels: Tensor) -> Network:
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # sums in one order, whatever the number of cores
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    batches = len(inputs) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, EPOCHS * batches)
    for _ in range(EPOCHS):
        # The images of the last, partial batch are left out; each epoch shuffles anew.
        for rows in torch.randperm(len(inputs))[: batches * BATCH].split(BATCH):
            optimizer.zero_grad()
            scores = network(distort(inputs[rows]))
            cross_entropy(scores, labels[rows], label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()
    network.eval()
    return network


def build_onnx(network: Network) -> onnx.ModelProto:
    """The network as ONNX, batch norms folded into the convolutions, any batch size."""
    nodes, weights = [], []

    def add_node(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def add_weights(name: str, layer: nn.Module) -> list[str]:
        for key, value in layer.named_parameters():
            weights.append(numpy_helper.from_array(value.detach().numpy(), f"{name}.{key}"))
        return [f"{name}.weight", f"{name}.bias"]

    tensor = RECIPE.input.name
    for index, layers in enumerate(zip(network.convolutions, network.norms, strict=True), 1):
        name = f"convolution{index}"
        inputs = [tensor, *add_weights(name, fuse_conv_bn_eval(*layers))]
        tensor = add_node("Conv", inputs, name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        tensor = add_node("Relu", [tensor], f"relu{index}")
        tensor = add_node("MaxPool", [tensor], f"pool{index}", kernel_shape=[2, 2], strides=[2, 2])
    tensor = add_node("GlobalAveragePool", [tensor], "mean")
    tensor = add_node("Flatten", [tensor], "features")
    inputs = [tensor, *add_weights("dense", network.dense)]
    add_node("Gemm", inputs, RECIPE.output.name, transB=1)

    side = RECIPE.image.side
    image = helper.make_tensor_value_info(
        RECIPE.input.name, TensorProto.FLOAT, ["N", 3, side, side]
    )
    scores = helper.make_tensor_value_info(
        RECIPE.output.name, TensorProto.FLOAT, ["N", RECIPE.classes]
    )
    graph = helper.make_graph(nodes, RECIPE.name, [image], [scores], initializer=weights)
    # Opset 13 and IR 8: old enough for every ONNX Runtime and TensorRT that the project runs on.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    network = train(*load_split("train"))
    inputs, labels = load_split("test")
    with torch.no_grad():
        good = int((network(inputs).argmax(dim=1) == labels).sum())
    print(f"held-out: {good} of {len(labels)} right, {good / len(labels):.1%}")
    write_file(HERE / "digits.onnx", build_onnx(network).SerializeToString(deterministic=True))
    write_file(HERE / "digits.json", json.dumps(RECIPE.to_dict(), indent=2) + "\n")


if __name__ == "__main__":
    main()
