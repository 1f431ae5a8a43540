"""What the system under test needs of an engine, and nothing more."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from ck_mlperf.common.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class EngineError(UserError):
    """The engine gave no usable answer: not a number, a class out of range, a wrong count."""


class Engine(abc.ABC):
    """Classifies batches of samples that were loaded before.

    A context manager: `open` on entry, `close` on exit. `name`, `cuda_device`, `max_batch`,
    `depth`, `at_once` and `gives_top5` are valid before `open`; `version` and `device` from
    `open` on.

    Calls never overlap, but they do not all come from the same thread: `open` and `close` come from
    the caller's, `load` and `unload` from any; `prepare`, `enqueue` and `collect` from one at a
    time: who wants to enqueue in another thread prepares there again. (ONNX Runtime keeps a CUDA
    graph for the thread that captured it.) An engine with state per thread (a CUDA context) makes
    it current in each method.
    """

    name: str
    """Which engine ran, as the record says it: 'onnxruntime-cpu'."""
    version: str
    """Version of the library that did the work."""
    device: str
    """What it ran on: 'cpu, 2 threads'."""
    cuda_device: int | None = None
    """CUDA's number of the GPU that it runs on; None: it runs on none."""
    max_batch: int | None = None
    """The most samples a batch may hold; None: any number."""
    depth: int = 1
    """How many batches may be between `enqueue` and `collect` at a time."""
    at_once: int = 1
    """How many of these compute at a time, and are faster so than one after another."""
    gives_top5: bool = False
    """Whether `collect` gives the five best labels instead of the best one."""

    @abc.abstractmethod
    def open(self) -> None:
        """Import the library, read the model, warm up. Not timed."""

    def prepare(self, sizes: Sequence[int]) -> None:  # noqa: B027
        """Make ready for batches of `sizes` samples in this thread. Not timed; before `load`.

        Batches of other sizes up to the largest may come as well, as the last of a query does; they
        may cost as much as the next larger one of `sizes`.
        """

    @abc.abstractmethod
    def load(self, images: NDArray[np.uint8]) -> None:
        """Make `images` (uint8 [n, side, side, 3]) addressable as rows 0 to n-1. Not timed.

        Replaces what was loaded before. The array may be a memory map that is only readable, and
        stays valid until `unload`.
        """

    @abc.abstractmethod
    def unload(self) -> None:
        """Let go of the loaded images."""

    @abc.abstractmethod
    def enqueue(self, rows: Sequence[int]) -> None:
        """Start one batch, 1 to `max_batch` loaded rows in this order. Timed.

        The rows may also come as an array, int64 [n].
        """

    @abc.abstractmethod
    def collect(self) -> NDArray[np.int32]:
        """Wait for the oldest batch; its labels as int32 [n], or [n, 5] best first. Timed.

        The labels are those of the data set: the model's labels offset is already off, and the
        background class of a model that has one is -1. The array is read before the next call.
        Raises EngineError where a score is not finite or a class is out of range.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of everything; called once, also after an error."""

    def __enter__(self) -> Engine:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
