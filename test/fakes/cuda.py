"""pycuda's driver and a GPU that computes nothing, as far as an engine's batches need them."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

from ck_mlperf.loadgen.engines.cuda import Gpu


class FakeError(Exception):
    """pycuda's own errors have a base that is none of Python's kinds of errors."""


class FakeMemoryError(FakeError):
    pass


class FakeAllocation:
    """Memory at an address, on the host as well as on the device."""

    def __init__(self, size: int) -> None:
        self.memory = np.zeros(size, np.uint8)

    def get_device_pointer(self) -> int:
        return int(self.memory.ctypes.data)

    __int__ = get_device_pointer

    def free(self) -> None:
        self.memory = np.empty(0, np.uint8)


class PinnedArray(np.ndarray):
    """An array whose `base` is its allocation, as pycuda's."""

    base: Any = None


class FakeCuda:
    """Events and streams that are done at once; a gigabyte free of two."""

    Error = FakeError
    MemoryError = FakeMemoryError
    event_flags = SimpleNamespace(DISABLE_TIMING=1, BLOCKING_SYNC=2)
    host_alloc_flags = SimpleNamespace(DEVICEMAP=1)

    def __init__(self) -> None:
        self.most_bytes = 1 << 40
        """A larger allocation fails."""

    def get_driver_version(self) -> int:
        return 12080

    def memcpy_htod_async(self, target: int, array: np.ndarray, stream: Any) -> None:
        ctypes.memmove(target, array.ctypes.data, array.nbytes)

    def mem_get_info(self) -> tuple[int, int]:
        return 1_000_000_000, 2_000_000_000

    def mem_alloc(self, size: int) -> FakeAllocation:
        if size > self.most_bytes:
            raise FakeMemoryError("cuMemAlloc failed: out of memory")
        return FakeAllocation(size)

    def memset_d8(self, target: Any, value: int, count: int) -> None: ...

    def pagelocked_empty(self, shape: Any, dtype: Any, mem_flags: int) -> PinnedArray:
        array = np.empty(shape, dtype).view(PinnedArray)
        array.base = FakeAllocation(array.nbytes)
        return array

    def Event(self, flags: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(record=lambda stream: None, synchronize=lambda: None)

    def Stream(self) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(handle=7)


class FakeGpu(Gpu):
    """An H200."""

    def __init__(self, ordinal: int) -> None:
        self.cuda = FakeCuda()
        self.ordinal, self.name, self.compute_capability = ordinal, "NVIDIA H200", "9.0"
        self._context = SimpleNamespace(
            push=lambda: None, pop=lambda: None, synchronize=lambda: None, detach=lambda: None
        )
