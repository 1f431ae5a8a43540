"""The pixels, against definitions written down here once more, without the shortcuts."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.images.decode import decode_image, library_versions
from ck_mlperf.images.recipe import ImageRecipe

FLAGS = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}


def decode(path: Path, recipe: ImageRecipe) -> np.ndarray:
    out = np.full((recipe.side, recipe.side, 3), 77, np.uint8)
    decode_image(path, recipe, out)
    return out


def follow_mlcommons(path: Path, side: int, percent: float, flag: int) -> np.ndarray:
    """pre_process_vgg of MLCommons' dataset.py, up to its float conversion, in its own order."""
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    height, width, _ = image.shape
    new_height = int(100.0 * side / percent)
    new_width = int(100.0 * side / percent)
    if height > width:
        w, h = new_width, int(new_height * height / width)
    else:
        h, w = new_height, int(new_width * width / height)
    image = cv2.resize(image, (w, h), interpolation=flag)
    left, right = int((w - side) / 2), int((w + side) / 2)
    top, bottom = int((h - side) / 2), int((h + side) / 2)
    return image[top:bottom, left:right]


def average_areas(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each output pixel is the mean of the source area under it: what 'area' means."""

    def weights(old: int, new: int) -> np.ndarray:
        edges = np.arange(new + 1) * old / new
        low, high = edges[:-1, None], edges[1:, None]
        cells = np.arange(old)
        return np.clip(np.minimum(high, cells + 1) - np.maximum(low, cells), 0, None) * new / old

    rows = np.einsum("yh,hwc->ywc", weights(image.shape[0], height), image)
    return np.einsum("xw,ywc->yxc", weights(image.shape[1], width), rows)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    """Noise in many shapes, without loss: wide, high, small, odd, square, gray."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(1)
    paths = []
    for height, width in [(375, 500), (500, 375), (333, 500), (28, 28), (97, 211), (256, 256),
                          (600, 257), (1, 1), (701, 1023), (300, 900)]:  # fmt: skip
        path = folder / f"{height}x{width}.png"
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert cv2.imwrite(str(path), pixels)
        paths.append(path)
    gray = folder / "gray.png"
    assert cv2.imwrite(str(gray), random.integers(0, 256, (300, 400), dtype=np.uint8))
    return [*paths, gray]


@pytest.mark.parametrize("interpolation", FLAGS)
@pytest.mark.parametrize(("side", "percent"), [(224, 87.5), (96, 100.0), (160, 80.0)])
def test_pixels_equal_those_of_mlcommons(pictures, interpolation, side, percent):
    recipe = ImageRecipe(side, percent / 100, interpolation)
    for path in pictures:
        expected = follow_mlcommons(path, side, percent, FLAGS[interpolation])
        assert np.array_equal(decode(path, recipe), expected), path.name


def test_area_is_the_mean_of_what_a_pixel_covers(pictures):
    path = pictures[0]
    image = cv2.imread(str(path))[:, :, ::-1].astype(float)
    resized = average_areas(image, 256, int(256 * 500 / 375))
    expected = resized[16 : 16 + 224, 58 : 58 + 224]
    assert np.abs(decode(path, ImageRecipe()) - expected).max() <= 0.51


def test_a_ramp_gives_the_values_worked_out_by_hand(tmp_path):
    # 512 x 512 to 256 x 256: the mean of 2 x 2 pixels. Column x has the value x // 2, so the result
    # has x in column x; the centre begins at column (256 - 224) / 2 = 16.
    ramp = np.zeros((512, 512, 3), np.uint8)
    ramp[:, :, 2] = np.arange(512) // 2  # red, in OpenCV's order
    ramp[:, :, 1] = 200
    assert cv2.imwrite(str(tmp_path / "ramp.png"), ramp)
    pixels = decode(tmp_path / "ramp.png", ImageRecipe())
    assert np.array_equal(pixels[..., 0], np.tile(np.arange(16, 240, dtype=np.uint8), (224, 1)))
    assert (pixels[..., 1] == 200).all()
    assert (pixels[..., 2] == 0).all()


# Of three images by the reference's own steps: mean of each channel, then the pixels (row, column)
# (0, 0), (112, 112), (223, 223). JPEG decoders differ by a level or two.
WRITTEN_DOWN = {
    "n01440764_tench.JPEG": (
        [123.16, 122.05, 97.41],
        [[75, 91, 86], [223, 183, 73], [87, 100, 93]],
    ),
    "n02094258_Norwich_terrier.JPEG": (
        [202.92, 176.33, 143.62],
        [[255, 255, 255], [106, 90, 55], [255, 255, 255]],
    ),
    "n02704792_amphibian.JPEG": (
        [91.69, 89.82, 85.39],
        [[2, 1, 5], [95, 93, 97], [176, 176, 163]],
    ),
}


@pytest.mark.parametrize("name", WRITTEN_DOWN)
def test_real_images_give_the_values_written_down(shared_data, name):
    means, pixels = WRITTEN_DOWN[name]
    made = decode(shared_data / "imagenet-500" / name, ImageRecipe())
    assert made.mean(axis=(0, 1)) == pytest.approx(means, abs=0.5)
    for at, expected in zip((0, 112, 223), pixels, strict=True):
        assert np.abs(made[at, at].astype(int) - expected).max() <= 3


@pytest.mark.parametrize("interpolation", ["area", "linear"])
def test_real_pixels_equal_those_of_mlcommons(shared_data, interpolation):
    recipe = ImageRecipe(interpolation=interpolation)
    for path in sorted((shared_data / "imagenet-500").glob("*.JPEG"))[::10]:
        expected = follow_mlcommons(path, 224, 87.5, FLAGS[interpolation])
        assert np.array_equal(decode(path, recipe), expected), path.name


def test_bgr_is_rgb_backwards(pictures):
    rgb = decode(pictures[0], ImageRecipe())
    assert np.array_equal(decode(pictures[0], ImageRecipe(channels="bgr")), rgb[..., ::-1])


def test_stretch_cuts_first_and_ignores_the_aspect(pictures):
    image = cv2.imread(str(pictures[0]))[:, :, ::-1]
    centre = image[(375 - 328) // 2 :][:328, (500 - 437) // 2 :][:, :437]  # 0.875 of each, down
    expected = cv2.resize(centre, (224, 224), interpolation=cv2.INTER_LINEAR)
    recipe = ImageRecipe(interpolation="linear", aspect="stretch")
    assert np.array_equal(decode(pictures[0], recipe), expected)


def test_antialias_equals_torchvision(pictures):
    image_module = pytest.importorskip("PIL.Image", reason="NOT RUN: needs Pillow")
    recipe = ImageRecipe(interpolation="antialias")
    for path in pictures:
        image = image_module.open(path).convert("RGB")
        width, height = image.size
        short, long = sorted(image.size)
        sizes = (256, int(256 * long / short))
        size = sizes if width <= height else sizes[::-1]
        resized = np.asarray(image.resize(size, image_module.Resampling.BILINEAR))
        top, left = round((size[1] - 224) / 2.0), round((size[0] - 224) / 2.0)
        assert np.array_equal(decode(path, recipe), resized[top : top + 224, left : left + 224])


def test_without_pillow_antialias_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert library_versions(ImageRecipe()) == {"opencv": cv2.__version__}
    with pytest.raises(UserError, match="pip install pillow"):
        library_versions(ImageRecipe(interpolation="antialias"))


@pytest.fixture
def jpeg() -> bytes:
    smooth = cv2.resize(np.eye(8, dtype=np.uint8) * 200, (320, 240))
    done, data = cv2.imencode(".jpeg", smooth)
    assert done
    return data.tobytes()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_a_cut_off_jpeg_is_named(tmp_path, jpeg, share):
    path = tmp_path / "cut.jpeg"
    path.write_bytes(jpeg[: int(len(jpeg) * share)])
    with pytest.raises(UserError, match=r"cut\.jpeg"):
        decode(path, ImageRecipe())


def damage(data: bytes, how: str) -> bytes:
    """A complete JPEG whose scan is damaged in the middle."""
    middle = (data.rfind(b"\xff\xda") + len(data)) // 2
    before, after = data[:middle], data[middle + 400 :]
    cuts = {
        "zeros": bytes(400),
        "ones": b"\xff\x00" * 200,
        "noise": np.random.default_rng(5).integers(0, 255, 400, np.uint8).tobytes(),
        "missing": b"",
        "marker": b"\xff\xd5" + data[middle : middle + 400],
        "twice": data[middle : middle + 400] * 2,
    }
    return before + cuts[how] + after


@pytest.mark.parametrize(
    ("how", "progressive"),
    [
        *((how, 0) for how in ("zeros", "ones", "noise", "missing", "marker", "twice")),
        *((how, 1) for how in ("ones", "missing", "marker", "twice")),
    ],
)
def test_a_jpeg_with_a_damaged_scan_is_named(tmp_path, capfd, how, progressive):
    noise = np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    data = cv2.imencode(".jpeg", cv2.GaussianBlur(noise, (5, 5), 2), options)[1].tobytes()
    path = tmp_path / "damaged.jpeg"
    path.write_bytes(data)
    decode(path, ImageRecipe())
    path.write_bytes(damage(data, how))
    with pytest.raises(UserError, match=r"damaged\.jpeg: damaged JPEG \(Corrupt JPEG data: .*\)\."):
        decode(path, ImageRecipe())
    assert capfd.readouterr() == ("", "")
    print("back", file=sys.stderr)
    assert capfd.readouterr().err == "back\n"


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path, jpeg):
    for name, data in (("plain.jpeg", jpeg), ("more.jpeg", jpeg + bytes(100))):
        (tmp_path / name).write_bytes(data)
    made = [decode(tmp_path / name, ImageRecipe()) for name in ("plain.jpeg", "more.jpeg")]
    assert np.array_equal(*made)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x00" * 1000, "no image"),
        (b"\xff\xd8\xff\xe0 nonsense \xff\xd9", "no image"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, content, what):
    path = tmp_path / "bad.jpeg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"bad\.jpeg: .*{what}"):
        decode(path, ImageRecipe())


def test_a_cut_off_png_is_named(tmp_path, pictures, capfd):
    data = pictures[0].read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"cut\.png"):
        decode(tmp_path / "cut.png", ImageRecipe())
    capfd.readouterr()  # libpng's own complaint
