"""A tiny ONNX classifier, and the JSON file of its recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

REST: dict[str, Any] = {
    "image": {"crop": 0.875, "interpolation": "area", "channels": "rgb"},
    "mean": [1, 2, 3],
    "scale": [0.5, 0.25, 2],
}


def make_onnx(
    path: Path,
    shape: tuple[Any, ...] | None = ("N", 3, 8, 8),
    classes: int | str = 1000,
    dtype: int = TensorProto.FLOAT,
    more_outputs: tuple[str, ...] = (),
    external: str | None = None,
) -> Path:
    """A classifier: the mean colour times a matrix. With 'class' the best class is an output."""
    count = classes if isinstance(classes, int) else 1000
    weights = np.random.default_rng(0).normal(size=(3, count)).astype(np.float32)
    tensor = numpy_helper.from_array(weights, "weights")
    if external is not None:
        onnx.external_data_helper.set_external_data(tensor, external)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["colour"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["scores"]),
    ]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes])]
    for name in more_outputs:
        nodes.append(helper.make_node("ArgMax", ["scores"], [name], axis=1, keepdims=0))
        outputs.insert(0, helper.make_tensor_value_info(name, TensorProto.INT64, ["N"]))
    inputs = [helper.make_tensor_value_info("images", dtype, shape)]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [tensor])
    opsets = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def write_recipe(path: Path, **changes: Any) -> None:
    data = REST | changes
    path.with_suffix(".json").write_text(
        json.dumps({key: value for key, value in data.items() if value is not None})
    )
