"""The words for precisions, inputs and outputs that tags, options, recipes and records share."""

from __future__ import annotations

from collections.abc import Collection

# What a plan computes in, the default first.
PRECISIONS = ("fp32", "tf32", "fp16", "int8")
# The precision of the converted ONNX file that a plan is built from. No file has tf32: that is a
# way to compute fp32.
FILE_PRECISION = {"fp32": "fp32", "tf32": "fp32", "fp16": "fp16", "int8": "int8"}
FILE_PRECISIONS = tuple(dict.fromkeys(FILE_PRECISION.values()))
# The input of a converted file: images; the network's own input in float32; or that in the type
# that the first layer computes in, by which plans are built.
FILE_INPUTS = ("uint8", "fp32", "native")
# What a plan's samples are, with numpy's names of their types: images, which a kernel before the
# plan prepares, or the plan's own input, in which they are prepared when they are loaded.
PLAN_INPUTS = {"uint8": "uint8", "int8": "int8", "fp16": "float16", "fp32": "float32"}
# The class of each image, or the scores of all classes.
OUTPUTS = ("class", "scores")


def find_precision(tags: Collection[str]) -> str:
    """What the tags of a model say of its precision."""
    return next((name for name in PRECISIONS if name in tags), PRECISIONS[0])
