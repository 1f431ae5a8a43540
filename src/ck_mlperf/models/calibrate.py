"""Calibrate int8: run real images through a network, and see what values its tensors have."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ck_mlperf.common.errors import UserError
from ck_mlperf.images.preprocessed import load_preprocessed
from ck_mlperf.models.network import open_session
from ck_mlperf.models.recipe import ModelRecipe, normalise

if TYPE_CHECKING:
    import onnx

# As many as MLPerf's lists of calibration images have.
DEFAULT_COUNT = 500
# Compared with the percentiles from 99.9 up, the mean of the images' maxima and the least squared
# error, this agrees most often with float32 over ResNet-50, MobileNet and SqueezeNet on 500 images
# of ImageNet. It leads by a few images only: they are nearly equal.
_PERCENTILE = 99.999
CALIBRATION_METHOD = f"percentile-{_PERCENTILE},bias-correction"
INT8_MAX = 127
_BINS = 4096


class Statistics:
    """What calibration learns about one tensor."""

    def __init__(self) -> None:
        self._images = 0
        self._top = 0.0
        # How many absolute values are in each of _BINS equal parts of the range 0 to _top.
        self._counts = np.zeros(_BINS, np.int64)
        self._sums: npt.NDArray[np.float64] | float = 0.0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """values: [1, channels, ...], of one image. Raises FloatingPointError if not finite."""
        absolute = np.abs(values).ravel()
        highest = float(absolute.max())
        if not np.isfinite(highest):
            raise FloatingPointError
        channels = values.shape[1] if values.ndim > 1 else 1
        self._sums += values.reshape(channels, -1).mean(axis=1, dtype=np.float64)
        self._images += 1
        self._top = self._top or highest or 1e-6
        while highest > self._top:
            merged = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.concatenate([merged, np.zeros_like(merged)])
            self._top *= 2
        absolute *= _BINS / self._top
        counts = np.bincount(absolute.astype(np.intp), minlength=_BINS + 1)
        counts[_BINS - 1] += counts[_BINS]  # the value _top itself
        self._counts += counts[:_BINS]

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Of each channel, float64 [channels], over all images."""
        return np.asarray(self._sums / self._images)

    @property
    def scale(self) -> float:
        """The int8 step with which 127 reaches all but the largest values, by _PERCENTILE."""
        used = np.flatnonzero(self._counts)
        if not used.any():  # all are in the first part: a tensor of zeros
            return 1.0
        wanted = self._counts.sum() * (_PERCENTILE / 100)
        last = int(np.searchsorted(self._counts.cumsum(), wanted)) or int(used[-1])
        return (last + 1) * self._top / _BINS / INT8_MAX


def calibrate(
    path: Path,
    model: onnx.ModelProto,
    recipe: ModelRecipe,
    tensors: Sequence[str],
    images: npt.NDArray[np.uint8],
    show_progress: bool = False,
) -> dict[str, Statistics]:
    """What values `tensors` have for the images, which are run one at a time.

    path: of the source, for messages. images: uint8 [n, side, side, 3], as recipe.image says.
    Raises UserError where a value is infinite or no number.
    """
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
    session = open_session(path, observed)
    batch = entry.type.tensor_type.shape.dim[0].dim_value or 1
    if recipe.input.dtype != "uint8":
        recipe = dataclasses.replace(
            recipe, input=dataclasses.replace(recipe.input, dtype="float32")
        )
    found = {name: Statistics() for name in tensors}
    hide = not (show_progress and sys.stderr.isatty())
    for image in tqdm(images, desc="calibration", unit="image", disable=hide):
        rows = np.repeat(normalise(image[None], recipe), batch, axis=0)
        values = dict(zip(names, session.run(names, {entry.name: rows}), strict=True))
        values[entry.name] = rows
        for name, statistics in found.items():
            try:
                statistics.add(values[name][:1])
            except FloatingPointError:
                raise UserError(
                    f"{path}: {name} is infinite, or no number, for an image of the calibration "
                    "set: int8 cannot hold it. Check mean and scale in the model's recipe"
                ) from None
    return found


def load_calibration(
    recipe: ModelRecipe, folder: Path | None, count: int | None
) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
    """The images to calibrate on, uint8 [n, side, side, 3], and how the result's recipe names them.

    folder: a preprocessed set. count: how many of its images, from the first; default: all of them,
    at most DEFAULT_COUNT. Raises UserError where the set is not what the model's recipe asks for.
    """
    wanted = f"images of {recipe.dataset}, preprocessed with {' '.join(recipe.image.tags())}"
    if folder is None:
        raise UserError(
            f"int8: calibration needs {wanted}. Give the folder of such a set with --calibration "
            "(python -m ck_mlperf.images.preprocess makes one)"
        )
    try:
        found = load_preprocessed(folder, verify=True)
    except UserError as error:
        raise UserError(f"int8: calibration needs {wanted}. {error}") from None
    has = {"dataset": found.manifest["dataset"], **found.recipe.to_dict()}
    wants = {"dataset": recipe.dataset, **recipe.image.to_dict()}
    differences = [
        f"{key} is {has[key]!r}, not {wants[key]!r}" for key in wants if has[key] != wants[key]
    ]
    if differences:
        raise UserError(
            f"int8: calibration needs {wanted}. {folder} is another set: {', '.join(differences)}. "
            "Preprocess the calibration images with this recipe"
        )
    available = len(found.images)
    if count is not None and not 1 <= count <= available:
        raise UserError(
            f"int8: calibration needs 1 to {available} images, which {folder} has, not {count}"
        )
    count = count or min(available, DEFAULT_COUNT)
    described = {
        "images_sha256": found.manifest["images_sha256"],
        "source_list_sha256": found.manifest["source_list_sha256"],
        "count": count,
        "method": CALIBRATION_METHOD,
    }
    return found.images[:count], described
