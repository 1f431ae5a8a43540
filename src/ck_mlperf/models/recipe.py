"""The recipe of a model: what an ONNX classifier wants as input and what its output means.

It is a JSON file beside the ONNX file (resnet.onnx, resnet.json). What the ONNX file says need not
be in the JSON; where both say something, they must agree.

`python -m ck_mlperf.models.recipe MODEL.onnx` prints the complete recipe as one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import hash_file, read_json
from ck_mlperf.common.tags import NAME_RULE, is_name
from ck_mlperf.images.dataset import DATASET_CLASSES
from ck_mlperf.images.recipe import CHANNEL_ORDERS, INTERPOLATIONS, ImageRecipe
from ck_mlperf.models.model_file import hash_model
from ck_mlperf.models.onnx_facts import find_files, read_onnx_facts
from ck_mlperf.models.precisions import FILE_PRECISIONS, PRECISIONS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FORMAT = 1
CHOICES: dict[str, tuple[Any, ...]] = {
    "format": (FORMAT,),
    "dataset": tuple(DATASET_CLASSES),
    "input.layout": ("NCHW", "NHWC"),
    "input.dtype": ("float32", "float16", "int8", "uint8"),
    "output.kind": ("scores", "class"),
    "labels_offset": (0, 1),
    "weights": ("trained", "random"),
    "precision": FILE_PRECISIONS,
}
# Every key of a recipe, in the order of printing; a dot separates levels of the JSON.
KEYS = (
    "format",
    "name",
    "dataset",
    "input.name",
    "input.layout",
    "input.dtype",
    "image.side",
    "image.crop",
    "image.interpolation",
    "image.channels",
    "image.aspect",
    "mean",
    "scale",
    "output.name",
    "output.kind",
    "classes",
    "labels_offset",
    "max_batch",
    "weights",
)
# Only in the recipe of a file that `ck_mlperf.models.convert` made; plain JSON.
OPTIONAL_KEY = "conversion"
# What is found in the ONNX file as it was published; a converted file's recipe has it from there.
SOURCE_KEYS = ("network", "source_md5", "precision")
# Only in the recipe of a file whose input is int8.
STEP_KEY = "input.step"
_INT8_LEAST, _INT8_MOST = -128, 127
_FLOAT32_MOST = 3.4e38  # what mean, scale and step are computed in


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """The model's image tensor: its name, 'NCHW' or 'NHWC', and numpy's name of its dtype.

    step: of int8, what 1 stands for; None for other types.
    """

    name: str
    layout: str
    dtype: str
    step: float | None = None


@dataclasses.dataclass(frozen=True)
class OutputSpec:
    """The output that is read: 'scores' [N, classes] (any float), or 'class' [N] (any integer)."""

    name: str
    kind: str


@dataclasses.dataclass(frozen=True)
class ModelRecipe:
    """Everything that an engine needs to know about a model.

    mean, scale: input = (pixel - mean) * scale, pixels 0 to 255, in the order of image.channels;
    of int8, that divided by input.step and rounded.
    classes: number of the model's classes; labels_offset: the class that is label 0 (1 where class
    0 is 'background', as in MLPerf's models of 1001 classes).
    max_batch: the most images in one batch, None where any number is fine; where the ONNX file
    fixes the batch, that size.
    conversion: how `ck_mlperf.models.convert` made the file: source_sha256, precision, input,
    output, calibration (images_sha256, source_list_sha256, count, method, or None), libraries; None
    for other files.
    network: one of `recognise.NETWORKS`, by the graph; None: another one, or a converted file of
    before this was noted. source_md5: of the ONNX file as it was published, before any conversion;
    None where it was not noted. precision: fp16 or int8 where that file came so; None: fp32.
    """

    name: str
    dataset: str
    input: InputSpec
    image: ImageRecipe
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    output: OutputSpec
    classes: int
    labels_offset: int
    max_batch: int | None
    weights: str
    format: int = FORMAT
    conversion: Mapping[str, Any] | None = dataclasses.field(default=None, hash=False)
    network: str | None = None
    source_md5: str | None = None
    precision: str | None = None

    @property
    def file_precision(self) -> str:
        """The precision of this ONNX file, one of FILE_PRECISIONS."""
        made = (self.conversion or {}).get("precision")
        return str(made or self.precision or PRECISIONS[0])

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON holds it, complete; without the last four where they are None."""
        data = dataclasses.asdict(self)
        if self.input.step is None:
            del data["input"]["step"]
        data["mean"], data["scale"] = list(self.mean), list(self.scale)
        keys = dict.fromkeys(key.split(".")[0] for key in KEYS)
        optional = (OPTIONAL_KEY, *SOURCE_KEYS)
        keys.update((key, None) for key in optional if data[key] is not None)
        return {key: data[key] for key in keys}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelRecipe:
        """The opposite of `to_dict`. Raises UserError on a bad image recipe; checks no other."""
        parts = {
            "input": InputSpec(**data["input"]),
            "image": ImageRecipe.from_dict(data["image"]),
            "mean": tuple(map(float, data["mean"])),
            "scale": tuple(map(float, data["scale"])),
            "output": OutputSpec(**data["output"]),
        }
        return cls(**{**data, **parts})


def load_model_recipe(onnx_path: Path) -> ModelRecipe:
    """The recipe of the model at `onnx_path`, from the ONNX file and the JSON file beside it.

    Raises UserError where the file is not an ONNX model or not an image classifier of three
    channels, where the two files contradict each other, and where neither says what is needed; the
    message then has a template to complete.
    """
    json_path = onnx_path.with_suffix(".json")
    stated = _read_json(json_path)
    facts = read_onnx_facts(onnx_path, stated)
    if OPTIONAL_KEY in stated:  # they are its source's
        facts.update({key: stated.get(key) for key in SOURCE_KEYS})
    else:
        facts["source_md5"] = hash_file(onnx_path, "md5")
    facts.update(_derive_labels(onnx_path, facts, stated))
    for key in [key for key in (*KEYS, *SOURCE_KEYS) if key in facts and key in stated]:
        if facts[key] != stated[key]:
            raise UserError(
                f"{json_path} says {key} = {stated[key]!r}, but {onnx_path} says {facts[key]!r}. "
                f"Correct or remove {key} in the JSON file"
            )
    defaults = {
        "format": FORMAT,
        "name": onnx_path.stem,
        "image.aspect": "keep",
        "max_batch": None,
        "weights": "trained",
    }
    values = defaults | stated | facts
    if not is_name(values["name"]):
        raise UserError(
            f"the model's name would be that of its file, {onnx_path.stem!r}: want {NAME_RULE}. "
            f'Rename the file, or write a "name" into {json_path}'
        )
    missing = [key for key in KEYS if key not in values]
    if missing:
        raise UserError(_describe_missing(onnx_path, json_path, values, missing))
    return _build(json_path, values)


def normalise(images: npt.NDArray[np.uint8], recipe: ModelRecipe) -> npt.NDArray[Any]:
    """The model's input tensor for `images`: (pixel - mean) * scale, computed in float32.

    For int8 the result is divided by recipe.input.step, rounded (half to even) and saturated, as
    ONNX's QuantizeLinear does.

    images: uint8 [n, side, side, 3], channels in the order of the recipe's image.
    Returns [n, 3, side, side] or [n, side, side, 3], as recipe.input.layout says, of dtype
    recipe.input.dtype, C-contiguous. Needs memory for the result and one more image.
    """
    import numpy as np

    side = recipe.image.side
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (side, side, 3):
        raise ValueError(f"want uint8 [n, {side}, {side}, 3], got {images.dtype} {images.shape}")
    planar = recipe.input.layout == "NCHW"
    shape = (len(images), 3, side, side) if planar else images.shape
    result = np.empty(shape, recipe.input.dtype)
    if recipe.input.dtype == "uint8":  # mean 0 and scale 1, as load_model_recipe makes sure
        result[:] = images.transpose(0, 3, 1, 2) if planar else images
        return result
    # Colours on the first axis or on the last, like the tensor's.
    mean = np.array(recipe.mean, np.float32)
    scale = np.array(recipe.scale, np.float32)
    if planar:
        images = images.transpose(0, 3, 1, 2)
        mean, scale = mean[:, None, None], scale[:, None, None]
    centred = np.empty(result.shape[1:], np.float32)
    for image, tensor in zip(images, result, strict=True):
        np.subtract(image, mean, out=centred)
        if recipe.input.step is None:
            np.multiply(centred, scale, out=tensor, casting="same_kind")
            continue
        np.multiply(centred, scale, out=centred)
        np.divide(centred, np.float32(recipe.input.step), out=centred)
        np.rint(centred, out=centred)
        np.clip(centred, _INT8_LEAST, _INT8_MOST, out=tensor, casting="unsafe")
    return result


def tabulate_pixels(recipe: ModelRecipe) -> npt.NDArray[Any]:
    """The value that `normalise` gives each pixel value, of dtype recipe.input.dtype, [3, 256].

    A row for each colour, in the order of the recipe's image.
    """
    import numpy as np

    values = np.arange(256, dtype=np.uint8)
    square = dataclasses.replace(
        recipe,
        input=dataclasses.replace(recipe.input, layout="NCHW"),
        image=dataclasses.replace(recipe.image, side=16),
    )
    images = np.repeat(values.reshape(1, 16, 16, 1), 3, axis=3)
    return normalise(images, square).reshape(3, 256)


def main() -> None:
    """Print the complete recipe of a model as JSON, with its sha256, its external files, and the
    state in which the files were read."""
    parser = argparse.ArgumentParser(prog="python -m ck_mlperf.models.recipe", description=__doc__)
    parser.add_argument("path", type=Path, metavar="MODEL.onnx")
    path = parser.parse_args().path
    external, state = find_files(path)
    recipe = load_model_recipe(path)
    facts: dict[str, Any] = {"sha256": hash_model(path, external), "files": state}
    if external:
        facts["external_files"] = external
    print(json.dumps({**recipe.to_dict(), **facts}, indent=2))


def _derive_labels(
    onnx_path: Path, facts: Mapping[str, Any], stated: Mapping[str, Any]
) -> dict[str, Any]:
    """The data set and labels_offset that follow from the number of classes."""
    classes = facts.get("classes", stated.get("classes"))
    dataset = stated.get("dataset", "imagenet" if classes in (1000, 1001) else None)
    if classes is None or dataset is None:
        return {}
    if stated.get("weights") == "random":  # its classes mean nothing, on any data set
        return {"dataset": dataset, "labels_offset": 0}
    offset = classes - DATASET_CLASSES[dataset]
    if offset not in (0, 1):
        raise UserError(
            f"{onnx_path} has {classes} classes, the data set {dataset} {DATASET_CLASSES[dataset]} "
            "labels: want as many, or one more (class 0 is then 'background')"
        )
    return {"dataset": dataset, "labels_offset": offset}


def _read_json(path: Path) -> dict[str, Any]:
    """What the JSON file says, checked, with dotted keys; {} where there is no such file."""
    try:
        data = read_json(path)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path}: no JSON: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: want one JSON object")
    stated: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and key != OPTIONAL_KEY:
            stated.update({f"{key}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            stated[key] = value
    unknown = [key for key in stated if key not in (*KEYS, *SOURCE_KEYS, OPTIONAL_KEY, STEP_KEY)]
    if unknown:
        raise UserError(f"{path}: unknown {', '.join(unknown)}. Known: {', '.join(KEYS)}")
    for key, value in stated.items():
        wish = _describe_wish(key, value)
        if wish:
            raise UserError(f"{path}: {key} = {value!r}: want {wish}")
    return stated


def _describe_wish(key: str, value: Any) -> str | None:
    """What `key` should be, if `value` is not; else None."""
    is_count = type(value) is int and value >= 1
    if key in CHOICES:
        # A bool is an int in Python: True must not pass for format 1.
        fits = not isinstance(value, bool) and value in CHOICES[key]
        return None if fits else " or ".join(map(repr, CHOICES[key]))
    if key == "name":
        return None if is_name(value) else NAME_RULE
    if key in ("input.name", "output.name"):
        return None if isinstance(value, str) and value else "a text"
    if key == "classes":
        return None if is_count else "a whole number, 1 or more"
    if key == "max_batch":
        return None if is_count or value is None else "a whole number, 1 or more, or null"
    if key in SOURCE_KEYS:
        return None if isinstance(value, str) else "a text"
    if key == OPTIONAL_KEY:
        return None if isinstance(value, dict) or value is None else "an object, or null"
    if key == STEP_KEY:
        return None if _is_finite(value) and value > 0 else "a number above 0"
    if key in ("mean", "scale"):
        fits = isinstance(value, list) and len(value) == 3 and all(map(_is_finite, value))
        if key == "scale" and fits:
            fits = all(value)
        return None if fits else "three numbers" + (", none of them 0" if key == "scale" else "")
    return None  # image.*: ImageRecipe checks them


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _FLOAT32_MOST


def _describe_missing(
    onnx_path: Path, json_path: Path, values: Mapping[str, Any], missing: list[str]
) -> str:
    template = json.dumps(_nest({key: values.get(key, "?") for key in KEYS}), indent=2)
    return (
        f"{onnx_path} does not say {', '.join(missing)}. Write {json_path}, with the values of the "
        'model\'s documentation where this has a "?" (input = (pixel - mean) * scale, pixels 0 to '
        "255, three numbers each, in the order of channels; "
        f"channels {' or '.join(CHANNEL_ORDERS)}; "
        f"interpolation {' or '.join(INTERPOLATIONS)}; crop such as 0.875):\n{template}"
    )


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        outer, _, inner = key.partition(".")
        if inner:
            nested.setdefault(outer, {})[inner] = value
        else:
            nested[outer] = value
    return nested


def _build(json_path: Path, values: Mapping[str, Any]) -> ModelRecipe:
    nested = _nest(values)
    if values["input.dtype"] == "uint8" and (any(nested["mean"]) or set(nested["scale"]) != {1}):
        raise UserError(
            f"{json_path}: a model with uint8 input takes pixels as they are: "
            "want mean [0, 0, 0] and scale [1, 1, 1]"
        )
    if (values["input.dtype"] == "int8") != (STEP_KEY in values):
        raise UserError(
            f"{json_path}: {STEP_KEY}, what 1 stands for, belongs to int8 input, and the input is "
            f"{values['input.dtype']}. Add it for int8, remove it for another type"
        )
    try:
        return ModelRecipe.from_dict(nested)
    except UserError as error:
        raise UserError(f"{json_path}: image: {error}") from None


if __name__ == "__main__":
    run_main(main)
