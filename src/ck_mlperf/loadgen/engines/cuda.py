"""NVIDIA GPUs through pycuda: contexts, samples in pinned memory, copies to the device, graphs.

docs/gpu.md has the measurements behind the ways of copying; `make bench-gpu` repeats them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.engines.rows import are_neighbours
from ck_mlperf.machine.gpus import CUDA_LIBRARY, list_cuda_devices

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The first driver with cuMemcpyBatchAsync, as cuDriverGetVersion gives it.
_BATCHED_COPY_SINCE = 12080
_SOURCES_IN_STREAM_ORDER = 1  # CU_MEMCPY_SRC_ACCESS_ORDER_STREAM


class _CopyAttributes(ctypes.Structure):
    """CUmemcpyAttributes of cuda.h; the hints, of where the memory is, are for managed memory."""

    _fields_ = (
        ("srcAccessOrder", ctypes.c_int),
        ("srcLocHint", ctypes.c_int * 2),
        ("dstLocHint", ctypes.c_int * 2),
        ("flags", ctypes.c_uint),
    )


class Gpu:
    """One GPU's primary context, which CUDA's runtime API (so ONNX Runtime) uses as well.

    Opened and closed by the same thread; `with gpu:` makes it current in any thread, which takes
    0.8 microseconds.
    """

    def __init__(self, ordinal: int) -> None:
        """Raises UserError without pycuda, without a driver, and without this GPU."""
        count = len(list_cuda_devices())
        if ordinal >= count:
            raise UserError(
                f"GPU {ordinal} was asked for, and CUDA sees {count}, numbered from 0; "
                "`nvidia-smi -L` lists them, and CUDA_VISIBLE_DEVICES may hide some"
            )
        self.cuda = import_pycuda()
        self.cuda.init()
        device = self.cuda.Device(ordinal)
        major, minor = device.compute_capability()
        self.ordinal = ordinal
        self.name: str = device.name()
        self.compute_capability = f"{major}.{minor}"
        self._context = device.retain_primary_context()

    def __enter__(self) -> Gpu:
        self._context.push()
        return self

    def __exit__(self, *_: object) -> None:
        self._context.pop()

    def describe_memory(self) -> str:
        """'1.2 of 80.0 GB are free'; it must be current."""
        free, total = self.cuda.mem_get_info()
        return f"{free / 1e9:.1f} of {total / 1e9:.1f} GB are free"

    def synchronize(self) -> None:
        """Wait for all that was started on this GPU; it must be current."""
        self._context.synchronize()

    def close(self) -> None:
        """Release the context; it must not be current."""
        self._context.detach()


class PinnedArray:
    """An array in pinned host memory that the GPU can read and write; freed by `free`."""

    def __init__(self, cuda: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        flags = cuda.host_alloc_flags.DEVICEMAP
        try:
            self.array: NDArray[Any] = cuda.pagelocked_empty(shape, dtype, mem_flags=flags)
        except (cuda.Error, MemoryError) as error:
            size_gb = int(np.prod(shape)) * dtype.itemsize / 1e9
            raise UserError(
                f"{size_gb:.1f} GB of pinned host memory cannot be had: {error}. Lower "
                "CK_LOADGEN_BUFFER_SIZE, or free memory"
            ) from None
        self._allocation: Any = self.array.base
        self.address: int = self._allocation.get_device_pointer()
        """As the GPU sees it."""

    def free(self) -> None:
        """Release the memory. No view of `array` may be used any more."""
        self.array = np.empty(0, self.array.dtype)
        self._allocation.free()


class PinnedSamples:
    """The loaded samples in pinned memory, and the fastest way to copy a batch to the device.

    One sample, or consecutive ones, are one copy. Others are one call of cuMemcpyBatchAsync, which
    fills the link from 8 samples of 150 kB on. With a driver older than CUDA 12.8 they are a copy
    each, at half that speed.
    """

    def __init__(self, cuda: Any, count: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._copy: Callable[[int, NDArray[Any], Any], None] = cuda.memcpy_htod_async
        self._pinned = PinnedArray(cuda, (count, *shape), dtype)
        self.array = self._pinned.array
        self.address = self._pinned.address
        self._row_bytes = int(np.prod(shape)) * dtype.itemsize
        self._rows = list(self.array)  # a view each, made outside the timed path
        self._batched: _BatchedCopies | None = None
        if cuda.get_driver_version() >= _BATCHED_COPY_SINCE:
            sources = self.place(self.array.ctypes.data, count)
            self._batched = _BatchedCopies(sources, self._row_bytes)

    def place(self, address: int, count: int) -> NDArray[np.uint64]:
        """The places of a batch of up to `count` samples in device memory, uint64 [count]."""
        places = np.arange(count, dtype=np.uint64)
        places *= self._row_bytes
        places += address
        return places

    def list_addresses(self) -> NDArray[np.uint64]:
        """Each sample's address, as the GPU sees it: uint64 [count]."""
        return self.place(self.address, len(self.array))

    def copy_batch(self, rows: Sequence[int], places: NDArray[np.uint64], stream: Any) -> None:
        """Start the copy of `rows` to the first of `places`, on `stream`."""
        count, first = len(rows), rows[0]
        if count == 1:
            self._copy(int(places[0]), self._rows[first], stream)
        elif are_neighbours(rows):
            self._copy(int(places[0]), self.array[first : first + count], stream)
        elif self._batched is not None:
            self._batched.start(rows, places, stream)
        else:
            self.copy_each(rows, places, stream)

    def copy_each(self, rows: Sequence[int], places: NDArray[np.uint64], stream: Any) -> None:
        """As `copy_batch`, by a copy per sample."""
        for row, place in zip(rows, places.tolist(), strict=False):
            self._copy(place, self._rows[row], stream)

    def free(self) -> None:
        """Release the memory; no copy may be under way."""
        self._rows = []
        self.array = np.empty(0, self.array.dtype)
        self._pinned.free()


class _BatchedCopies:
    """Copies of a batch by one call of cuMemcpyBatchAsync.

    By ctypes, with addresses in numpy's arrays: NVIDIA's Python bindings convert each sample's by
    itself, which takes a microsecond a sample.
    """

    def __init__(self, sources: NDArray[np.uint64], row_bytes: int) -> None:
        """sources: address of each sample in pinned memory, uint64 [count]."""
        self._start = ctypes.CDLL(CUDA_LIBRARY).cuMemcpyBatchAsync
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        # Addresses of targets, sources and sizes, their count, attributes, which of them begin
        # where, their count, where the index of one that failed goes, stream. Since CUDA 13 the
        # header's name means cuMemcpyBatchAsync_v2, without the last but one; the library has both.
        self._start.argtypes = (*[pointer] * 3, size, *[pointer] * 2, size, pointer, pointer)
        self._sources = sources
        self._sizes = np.full(len(sources), row_bytes, np.uint64)
        attributes, first, failed = _CopyAttributes(_SOURCES_IN_STREAM_ORDER), size(0), size(0)
        self._more = (ctypes.byref(attributes), ctypes.byref(first), 1, ctypes.byref(failed))

    def start(self, rows: Sequence[int], places: NDArray[np.uint64], stream: Any) -> None:
        """Start the copy of `rows` to the first of `places`, on `stream`."""
        sources = self._sources.take(rows)
        if len(sources) > len(self._sizes):  # more than there are: some come more than once
            self._sizes = np.full(len(sources), self._sizes[0])
        error = self._start(
            places.ctypes.data,
            sources.ctypes.data,
            self._sizes.ctypes.data,
            len(sources),
            *self._more,
            stream.handle,
        )
        if error:
            raise RuntimeError(f"cuMemcpyBatchAsync: CUDA's error {error}")


class Graph:
    """A CUDA graph: what `record` starts on a stream, as one launch.

    pycuda has no graphs; NVIDIA's bindings (cuda-bindings) accept its streams.
    """

    def __init__(self, stream: Any, record: Callable[[], None]) -> None:
        """Raises UserError without cuda-bindings, RuntimeError where CUDA cannot capture it."""
        driver = import_cuda_bindings()
        self._driver = driver
        self._stream = driver.CUstream(stream.handle)
        # Other threads' calls, which load samples on another GPU, must not disturb this capture.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._check(driver.cuStreamBeginCapture(self._stream, mode))
        try:
            record()
        finally:
            # Also after an error: a stream that still captures cannot be used otherwise.
            error, graph = driver.cuStreamEndCapture(self._stream)
        self._check((error,))
        self._executable = self._check(driver.cuGraphInstantiate(graph, 0))
        self._check(driver.cuGraphDestroy(graph))
        # Otherwise the first launch would do it, in the timed part.
        self._check(driver.cuGraphUpload(self._executable, self._stream))

    def launch(self) -> None:
        """Start it on the stream of the capture. Timed."""
        (error,) = self._driver.cuGraphLaunch(self._executable, self._stream)
        if error:
            raise RuntimeError(f"cuGraphLaunch: {error.name}")

    def free(self) -> None:
        """Release it; no launch may be under way."""
        self._check(self._driver.cuGraphExecDestroy(self._executable))

    def _check(self, result: tuple[Any, ...]) -> Any:
        error, *values = result
        if error == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise MemoryError(f"CUDA graph: {error.name}")
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"CUDA graph: {error.name}")
        return values[0] if values else None


def import_pycuda() -> Any:
    """pycuda.driver. Raises UserError where it is not installed."""
    try:
        import pycuda.driver
    except ModuleNotFoundError as error:
        raise UserError(
            f"this run needs pycuda ({error}): `pip install pycuda` builds it with the CUDA "
            "toolkit's nvcc"
        ) from None
    except ImportError as error:
        raise UserError(
            f"pycuda is installed and does not load: {error}. It needs the CUDA that it was built "
            "with: `pip install --force-reinstall --no-cache-dir pycuda` builds it for this one"
        ) from None
    return pycuda.driver


def import_cuda_bindings() -> Any:
    """NVIDIA's bindings, for what pycuda lacks. Raises UserError where they are not installed."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise UserError(
            f"this run needs NVIDIA's Python bindings ({error}): `pip install cuda-bindings`, for "
            "the CUDA version that `nvidia-smi` shows"
        ) from None
    return driver
