"""From uint8 images to a network's input: on the host when they are loaded, or on the GPU.

The layouts are TensorRT's: LINEAR as the recipe says, CHW4 and HWC8 with a pixel's colours next to
each other, padded with zeros.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ck_mlperf.models.recipe import ModelRecipe, tabulate_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ck_mlperf.loadgen.engines.cuda import Gpu

_KERNELS = Path(__file__).with_name("prepare.ptx")
_COLOURS = 3
_WIDTHS = {"CHW4": 4, "HWC8": 8}
_PIXELS_PER_THREAD = 16
_VECTOR_BYTES = 16
_THREADS, _MOST_BLOCKS = 128, 4096


def shape_sample(recipe: ModelRecipe, layout: str) -> tuple[int, ...]:
    """The shape of one sample in the network's input."""
    side = recipe.image.side
    if layout in _WIDTHS:
        return (side, side, _WIDTHS[layout])
    return (_COLOURS, side, side) if recipe.input.layout == "NCHW" else (side, side, _COLOURS)


def pack(images: NDArray[Any], layout: str) -> NDArray[Any]:
    """Normalised images [n, 3, side, side] in a layout; LINEAR leaves them unchanged."""
    if layout not in _WIDTHS:
        return images
    count, _, height, width = images.shape
    packed = np.zeros((count, height, width, _WIDTHS[layout]), images.dtype)
    packed[..., :_COLOURS] = images.transpose(0, 2, 3, 1)
    return packed


def can_prepare(recipe: ModelRecipe) -> bool:
    """Whether there is a kernel that makes the network's input from images."""
    is_known = recipe.input.layout == "NCHW" and recipe.input.dtype != "uint8"
    return is_known and recipe.image.side**2 % _PIXELS_PER_THREAD == 0


def can_gather(sample_bytes: int) -> bool:
    """Whether there is a kernel that copies samples of this size."""
    return sample_bytes % _VECTOR_BYTES == 0


class _Kernel:
    """A kernel of prepare.cu. The GPU must be current in all calls."""

    def __init__(self, gpu: Gpu, name: str, pieces: int, types: str) -> None:
        """pieces: of a sample; a thread takes one at a time. types: of the kernel's arguments."""
        self._module: Any = gpu.cuda.module_from_buffer(_KERNELS.read_bytes() + b"\0")
        self._function: Any = self._module.get_function(name).prepare(types)
        self._pieces = pieces

    def free(self) -> None:
        """Release the code; no launch may be under way."""
        self._function = self._module = None

    def _launch(self, count: int, stream: Any, *arguments: int) -> None:
        blocks = min(-(-count * self._pieces // _THREADS), _MOST_BLOCKS)
        self._function.prepared_async_call((blocks, 1), (_THREADS, 1, 1), stream, *arguments)


class Preparing(_Kernel):
    """Looks up every pixel value in a table of what `normalise` makes of it."""

    def __init__(self, gpu: Gpu, recipe: ModelRecipe, layout: str) -> None:
        """layout: of the network's input; `can_prepare` says whether there is a kernel for it."""
        table = tabulate_pixels(recipe)
        area = recipe.image.side**2
        name = f"prepare_{table.itemsize}_{layout if layout in _WIDTHS else recipe.input.layout}"
        super().__init__(gpu, name, area // _PIXELS_PER_THREAD, "PPPII")
        self._area = area
        self._table = gpu.cuda.mem_alloc(table.nbytes)
        gpu.cuda.memcpy_htod(self._table, table)

    def start(self, samples: int, target: int, count: int, stream: Any) -> None:
        """Make the network's input from `count` images.

        samples: device address of the list of the images' addresses, uint64 [count]; the images are
        in device or pinned memory. target: device address of the network's input.
        """
        self._launch(count, stream, samples, int(self._table), target, count, self._area)

    def free(self) -> None:
        """Release the table, too."""
        self._table.free()
        super().free()


class Gathering(_Kernel):
    """Copies samples that are already in the network's layout."""

    def __init__(self, gpu: Gpu, sample_bytes: int) -> None:
        self._vectors = sample_bytes // _VECTOR_BYTES
        super().__init__(gpu, "gather", max(1, self._vectors // 4), "PPII")

    def start(self, samples: int, target: int, count: int, stream: Any) -> None:
        """As `Preparing.start`."""
        self._launch(count, stream, samples, target, count, self._vectors)
