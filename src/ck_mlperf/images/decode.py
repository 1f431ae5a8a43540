"""One image file to the uint8 pixels that a recipe asks for."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import read_regular
from ck_mlperf.images.recipe import ImageRecipe

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Source pixels beyond its own area that an output pixel may read (linear: one), with a margin.
_REACH = 4

_MOST_SAID = 10_000
"""Bytes of what is printed while an image is decoded; libjpeg prints one line."""

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


def library_versions(recipe: ImageRecipe) -> dict[str, str]:
    """The libraries that the pixels depend on, with their versions; imports them.

    Raises UserError where the recipe needs one that is not installed.
    """
    import cv2

    versions = {"opencv": cv2.__version__}
    if recipe.interpolation == "antialias":
        try:
            import PIL.Image
        except ImportError:
            raise UserError("interpolation antialias needs Pillow: pip install pillow") from None
        versions["pillow"] = PIL.__version__
    return versions


def decode_image(path: Path, recipe: ImageRecipe, out: npt.NDArray[np.uint8]) -> str:
    """Decode, resize and crop the image at `path` into `out`, uint8 [side, side, 3].

    Returns the sha256, in hex, of the file that was decoded.

    The pixels are those of the reference that the recipe follows:
    aspect keep: resize the short side to recipe.resized_side, the long one in proportion, rounded
    down; then cut out the centre. With interpolation area this is what MLCommons does for ResNet-50
    (mlcommons/inference, vision/classification_and_detection/python/dataset.py, pre_process_vgg),
    with antialias it is torchvision's Resize and CenterCrop of Pillow images.
    aspect stretch: cut out the centre first, a share `crop` of each side, then resize both sides.
    TensorFlow-Slim does this (inception_preprocessing.py, preprocess_for_eval), but rounds the cut
    differently.

    Raises UserError that names the file where it is not a complete image, and where libjpeg warns
    of it: libjpeg replaces what is damaged, and OpenCV returns that without an error.
    """
    import cv2

    data = read_regular(path)
    if _is_cut_off(data):
        raise UserError(f"{path}: JPEG is cut off after {len(data)} bytes. Restore the file")
    try:
        image, warning = _decode(data)
        if warning:
            raise UserError(f"{path}: damaged JPEG ({warning}). Restore the file")
        if image is None:
            raise UserError(f"{path}: {_describe(data)}. Restore the file")
        pixels = _fit(image, recipe)
    except cv2.error as error:
        raise UserError(f"{path}: {_describe(data)} ({error.err}). Restore the file") from None
    if recipe.channels == "rgb":
        # MLCommons swaps before resizing. Here are fewer pixels, and the result is the same.
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=out)
    else:
        out[:] = pixels
    return hashlib.sha256(data).hexdigest()


def _decode(data: bytes) -> tuple[npt.NDArray[Any] | None, str]:
    """The image, BGR; None where OpenCV cannot decode it. And libjpeg's first warning, or ''.

    libjpeg only prints its warnings. So the process's stderr is a file while it decodes a JPEG.
    """
    import cv2
    import numpy as np

    encoded = np.frombuffer(data, np.uint8)
    if not data.startswith(_JPEG_START):
        return cv2.imdecode(encoded, cv2.IMREAD_COLOR), ""
    stderr = os.dup(2)
    said = os.memfd_create("libjpeg")
    try:
        os.dup2(said, 2)
        try:
            image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        finally:
            os.dup2(stderr, 2)
        lines = os.pread(said, _MOST_SAID, 0).decode(errors="replace").splitlines()
    finally:
        os.close(said)
        os.close(stderr)
    # OpenCV's own lines begin with the level in brackets.
    return image, next((line for line in lines if not line.startswith("[")), "")


def _fit(image: npt.NDArray[Any], recipe: ImageRecipe) -> npt.NDArray[Any]:
    """The image as [side, side, 3], channels as they are."""
    import cv2

    height, width = image.shape[:2]
    if recipe.aspect == "stretch":
        kept = [max(1, size * recipe.crop_permille // 1000) for size in (height, width)]
        top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
        centre = image[top : top + kept[0], left : left + kept[1]]
        return _resize(centre, recipe.side, recipe.side, recipe)
    short = recipe.resized_side
    if height > width:
        new_height, new_width = int(short * height / width), short
    else:
        new_height, new_width = short, int(short * width / height)
    # torchvision rounds the corner to the nearest (half to even), MLCommons rounds it down.
    to_pixel = round if recipe.interpolation == "antialias" else int
    top, left = to_pixel((new_height - recipe.side) / 2), to_pixel((new_width - recipe.side) / 2)
    if recipe.interpolation in ("area", "linear"):
        # Leave out what is right of the centre and below it, which saves a tenth of the time.
        # With the same scale the pixels are the same, except for cubic, which rounds differently.
        scale_x, scale_y = new_width / width, new_height / height
        image = image[
            : math.ceil((top + recipe.side) / scale_y) + _REACH,
            : math.ceil((left + recipe.side) / scale_x) + _REACH,
        ]
        resized = cv2.resize(
            image, None, fx=scale_x, fy=scale_y, interpolation=_opencv_flag(recipe)
        )
    else:
        resized = _resize(image, new_height, new_width, recipe)
    return resized[top : top + recipe.side, left : left + recipe.side]


def _resize(
    image: npt.NDArray[Any], height: int, width: int, recipe: ImageRecipe
) -> npt.NDArray[Any]:
    import cv2
    import numpy as np

    if recipe.interpolation == "antialias":
        import PIL.Image

        pillow = PIL.Image.fromarray(image)
        return np.asarray(pillow.resize((width, height), PIL.Image.Resampling.BILINEAR))
    return cv2.resize(image, (width, height), interpolation=_opencv_flag(recipe))


def _opencv_flag(recipe: ImageRecipe) -> int:
    import cv2

    flags = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
    return flags[recipe.interpolation]


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG lacks the end of its (last) scan. Some versions of OpenCV fill it with grey.

    The end marker cannot occur inside a scan: there 0xff is always followed by 0 or a restart.
    """
    if not data.startswith(_JPEG_START) or data.endswith(_JPEG_END):
        return False
    return data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN)


def _describe(data: bytes) -> str:
    if not data:
        return "an empty file"
    if data.lstrip()[:1] == b"<":
        return "no image but a web page"
    return "no image that OpenCV can decode, or a damaged one"
