"""From images to a network's input: what the host does, and what there is a kernel for.

What the kernels make is tested on a GPU (test/gpu).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ck_mlperf.loadgen.engines import prepare
from ck_mlperf.loadgen.engines.prepare import (
    Gathering,
    Preparing,
    can_gather,
    can_prepare,
    pack,
    shape_sample,
)
from ck_mlperf.models.recipe import ModelRecipe
from ck_mlperf.tensorrt.api.interface import INPUT_FORMATS

KERNELS = Path(prepare.__file__).with_name("prepare.cu")
LINES = KERNELS.with_suffix(".ptx").read_text().splitlines()
WIDTHS = {"CHW4": 4, "HWC8": 8}


def make_recipe(dtype: str = "int8", layout: str = "NCHW", side: int = 8) -> ModelRecipe:
    spec: dict[str, Any] = {"name": "images", "layout": layout, "dtype": dtype}
    if dtype == "int8":
        spec["step"] = 0.5
    plain = dtype == "uint8"
    return ModelRecipe.from_dict(
        {
            "format": 1,
            "name": "tiny",
            "dataset": "digits",
            "input": spec,
            "image": {
                "side": side,
                "crop": 1,
                "interpolation": "area",
                "channels": "rgb",
                "aspect": "keep",
            },
            "mean": [0, 0, 0] if plain else [120, 110, 100],
            "scale": [1, 1, 1] if plain else [0.5, 0.25, 0.125],
            "output": {"name": "class", "kind": "class"},
            "classes": 10,
            "labels_offset": 0,
            "max_batch": None,
            "weights": "trained",
        }
    )


def list_kernels() -> set[str]:
    return {
        found[1]
        for line in LINES
        if (found := re.match(r"\.visible \.entry (\w+)\(", line)) is not None
    }


def test_the_compiled_kernels_are_those_of_the_source() -> None:
    digest = hashlib.sha256(KERNELS.read_bytes()).hexdigest()
    assert LINES[0] == f"// prepare.cu, sha256 {digest}", "run tools/compile_kernels.py again"
    in_source = set(re.findall(r"__global__ void (\w+)\(", KERNELS.read_text()))
    assert list_kernels() == in_source
    assert "gather" in in_source


def test_old_drivers_and_gpus_take_the_kernels() -> None:
    """CUDA 11.8's PTX, for the oldest GPUs that a TensorRT of ours runs on (8.6: 5.0)."""
    assert ".version 7.8" in LINES
    assert ".target sm_50" in LINES


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_shape_of_a_sample(layout: str) -> None:
    recipe = make_recipe(layout=layout, side=12)
    linear = (3, 12, 12) if layout == "NCHW" else (12, 12, 3)
    assert shape_sample(recipe, "LINEAR") == linear
    assert shape_sample(recipe, "CHW4") == (12, 12, 4)
    assert shape_sample(recipe, "HWC8") == (12, 12, 8)


@pytest.mark.parametrize("layout", ["CHW4", "HWC8"])
@pytest.mark.parametrize("dtype", [np.int8, np.float16])
def test_the_colours_of_a_pixel_are_packed_side_by_side(layout: str, dtype: Any) -> None:
    images = np.random.default_rng(0).integers(1, 99, (5, 3, 6, 6)).astype(dtype)
    packed = pack(images, layout)
    assert (packed.dtype, packed.shape) == (dtype, (5, 6, 6, WIDTHS[layout]))
    assert packed.flags.c_contiguous
    assert packed.shape[1:] == shape_sample(make_recipe(side=6), layout)
    for colour in range(3):
        assert np.array_equal(packed[..., colour], images[:, colour])
    assert not packed[..., 3:].any()


def test_linear_samples_stay_as_they_are() -> None:
    images = np.zeros((2, 3, 4, 4), np.float32)
    assert pack(images, "LINEAR") is images


@pytest.mark.parametrize(
    ("dtype", "layout", "side", "can"),
    [
        ("int8", "NCHW", 28, True),
        ("float16", "NCHW", 224, True),
        ("float32", "NCHW", 224, True),
        ("uint8", "NCHW", 224, False),  # the network takes the images as they are
        ("float32", "NHWC", 224, False),
        ("int8", "NCHW", 227, False),  # no multiple of 16 pixels
        ("int8", "NCHW", 30, False),
        ("int8", "NCHW", 4, True),
    ],
)
def test_what_is_prepared_on_the_gpu(dtype: str, layout: str, side: int, can: bool) -> None:
    assert can_prepare(make_recipe(dtype, layout, side)) == can


@pytest.mark.parametrize(
    ("sample_bytes", "can"), [(64, True), (3 * 224 * 224, True), (63, False), (3 * 227**2, False)]
)
def test_what_is_gathered(sample_bytes: int, can: bool) -> None:
    assert can_gather(sample_bytes) == can


class FakeGpu:
    """Takes the place of a GPU that is current: notes what is launched, knows the kernels."""

    def __init__(self) -> None:
        self.cuda = self
        self.launched: list[tuple[Any, ...]] = []
        self.freed = 0
        self.table: Any = None

    def module_from_buffer(self, buffer: bytes) -> FakeGpu:
        assert buffer.endswith(b"\n\0")  # a string of C
        return self

    def get_function(self, name: str) -> FakeGpu:
        assert name in list_kernels()
        self.name = name
        return self

    def prepare(self, types: str) -> FakeGpu:
        self.types = types
        return self

    def prepared_async_call(self, grid: Any, block: Any, stream: Any, *arguments: int) -> None:
        assert len(arguments) == len(self.types)
        self.launched.append((grid, block, stream, arguments))

    def mem_alloc(self, size: int) -> FakeGpu:
        self.size = size
        return self

    def memcpy_htod(self, target: Any, values: Any) -> None:
        assert values.nbytes == self.size
        self.table = values

    def __int__(self) -> int:
        return 4096

    def free(self) -> None:
        self.freed += 1


DATA_TYPES = {"INT8": "int8", "HALF": "float16", "FLOAT": "float32"}


@pytest.mark.parametrize("name", DATA_TYPES)
def test_there_is_a_kernel_for_whatever_layout_a_builder_may_choose(name: str) -> None:
    recipe = make_recipe(DATA_TYPES[name])
    for layout in ("LINEAR", *INPUT_FORMATS.get(name, ())):
        assert can_prepare(recipe)
        gpu = FakeGpu()
        Preparing(gpu, recipe, layout)  # asks for it by name
        assert gpu.table.shape == (3, 256)


def test_a_preparing_kernel_is_started_with_enough_threads() -> None:
    gpu = FakeGpu()
    kernel = Preparing(gpu, make_recipe("float16", side=224), "HWC8")
    kernel.start(512, 1024, 3, "stream")
    kernel.start(512, 1024, 4000, "stream")
    pieces = 224 * 224 // 16
    blocks = -(-3 * pieces // 128)
    arguments = (512, 4096, 1024, 3, 224 * 224)
    assert gpu.launched[0] == ((blocks, 1), (128, 1, 1), "stream", arguments)
    assert gpu.launched[1][0] == (4096, 1)  # each thread takes several then
    kernel.free()
    assert gpu.freed == 1


def test_a_gathering_kernel_is_started_with_enough_threads() -> None:
    gpu = FakeGpu()
    Gathering(gpu, 3 * 28 * 28).start(512, 1024, 5, "stream")
    vectors = 3 * 28 * 28 // 16
    blocks = -(-5 * (vectors // 4) // 128)
    assert gpu.launched == [((blocks, 1), (128, 1, 1), "stream", (512, 1024, 5, vectors))]
