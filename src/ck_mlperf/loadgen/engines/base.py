"""What the system under test needs of an engine, and nothing more."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class EngineError(UserError):
    """The engine gave no usable answer: not a number, a class out of range, a wrong count."""


@contextlib.contextmanager
def refuse_exit() -> Iterator[None]:
    """Raise EngineError in place of SystemExit, with which an engine might end the run as done."""
    try:
        yield
    except SystemExit as ended:
        raise EngineError(
            f"sys.exit({ended.code!r}) was called in an engine, which ended the test: a defect of "
            "the engine"
        ) from ended


class Engine(abc.ABC):
    """Classifies batches of samples that were loaded before.

    A context manager: `open` on entry, `close` on exit. `name`, `cuda_device`, `max_batch`,
    `depth`, `at_once` and `gives_top5` are valid before `open`; `version`, `device`, `options` and
    `model_sha256` from `open` on.

    Calls never overlap, but they come from several threads: `open` and `close` from the caller's,
    `load` and `unload` from any, `prepare`, `enqueue` and `collect` from one at a time. To enqueue
    from another thread, prepare there again: ONNX Runtime keeps a CUDA graph for the thread that
    captured it. An engine with state per thread (a CUDA context) makes it current in each method.
    """

    name: str
    """Which engine ran, as in the record: 'onnxruntime-cpu'."""
    version: str
    """Version of the library that did the work."""
    device: str
    """What it ran on: 'cpu, 2 threads'."""
    model_sha256: str | None = None
    """Of the model's file as `open` has read it, in hex; None: it reads none."""
    options: Mapping[str, Any] = {}
    """How its library was set up, as JSON holds it, for the record."""
    cuda_device: int | None = None
    """CUDA's number of the GPU that it runs on; None: it uses no GPU."""
    max_batch: int | None = None
    """The most samples a batch may hold; None: any number."""
    depth: int = 1
    """How many batches may be between `enqueue` and `collect` at a time."""
    at_once: int = 1
    """How many of these compute at the same time, where that is faster than one by one."""
    gives_top5: bool = False
    """Whether `collect` gives the five best labels instead of the best one."""

    @abc.abstractmethod
    def open(self) -> None:
        """Import the library, read the model, warm up. Not timed."""

    def prepare(self, sizes: Sequence[int]) -> None:  # noqa: B027
        """Get ready for batches of `sizes` samples in this thread. Not timed; before `load`.

        Batches of other sizes up to the largest may come as well, such as the last of a query; they
        may cost as much as the next larger one of `sizes`.
        """

    @abc.abstractmethod
    def load(self, images: NDArray[np.uint8]) -> None:
        """Make `images` (uint8 [n, side, side, 3]) addressable as rows 0 to n-1. Not timed.

        Replaces what was loaded before. The array may be a read-only memory map, and stays valid
        until `unload`.
        """

    @abc.abstractmethod
    def unload(self) -> None:
        """Release the loaded images."""

    @abc.abstractmethod
    def enqueue(self, rows: Sequence[int]) -> None:
        """Start one batch of 1 to `max_batch` loaded rows, in this order. Timed.

        The rows may also come as an array, int64 [n].
        """

    @abc.abstractmethod
    def collect(self) -> NDArray[np.int32]:
        """Wait for the oldest batch; its labels as int32 [n], or [n, 5] best first. Timed.

        The labels are the data set's: the model's labels offset is subtracted, and a background
        class is -1. The array is read before the next call.
        Raises EngineError where a score is not finite or a class is out of range.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release everything; called once, also after an error."""

    @refuse_exit()
    def __enter__(self) -> Engine:
        self.open()
        return self

    @refuse_exit()
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
