"""What the engines on NVIDIA GPUs share: slots for batches, whose copies overlap computation.

A batch's samples go from pinned memory into its slot's input on the device; the network runs, and
writes its answers straight into pinned memory.
"""

from __future__ import annotations

import abc
import bisect
import contextlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.engines.answers import has_top5, read_labels
from ck_mlperf.loadgen.engines.base import Engine, EngineError
from ck_mlperf.models.recipe import ModelRecipe, normalise

if TYPE_CHECKING:
    from ck_mlperf.loadgen.engines.cuda import Gpu, PinnedSamples

# For larger batches the thread waits asleep: a dozen microseconds more, but no processor time.
_SPIN_UP_TO = 8
_IMAGES_AT_A_TIME = 256


class Slot:
    """A batch's place on the GPU and, once it has computed, its answers."""

    def __init__(self, gpu: Gpu, copy_stream: Any, compute_stream: Any) -> None:
        flags = gpu.cuda.event_flags
        self.copy_stream = copy_stream
        """pycuda's Stream for the copies of samples that overlap another batch's computation."""
        self.compute_stream = compute_stream
        """pycuda's Stream of the network; may be the same."""
        self.copied = gpu.cuda.Event(flags.DISABLE_TIMING)
        self.done = gpu.cuda.Event(flags.DISABLE_TIMING)
        self.done_asleep = gpu.cuda.Event(flags.DISABLE_TIMING | flags.BLOCKING_SYNC)
        self.input = 0
        """Device address of the samples of the largest batch, as they are in pinned memory."""
        self.output = 0
        """Device address of its output tensor: of `answers`."""
        self.places: NDArray[np.uint64]
        """Device address of each sample of the largest batch."""
        self.answers: NDArray[Any]
        """The output, in pinned memory. Copying it from the device would cost 50 microseconds."""
        self.count = 0
        """The samples of the batch that is under way."""


class CudaEngine(Engine):
    """An engine on one GPU, except for how a network is opened and started: subclasses do that.

    `close` frees all that was allocated, last first, also where something raised before.
    """

    cuda_device: int
    depth = 2

    def __init__(self, model: Path, recipe: ModelRecipe, device: int) -> None:
        self._path = model
        self._recipe = recipe
        self.cuda_device = device
        self.max_batch = recipe.max_batch
        self.gives_top5 = has_top5(recipe)
        side = recipe.image.side
        self._sample_shape: tuple[int, ...] = (side, side, 3)
        if recipe.input.layout == "NCHW":
            self._sample_shape = (3, side, side)
        self._sample_dtype = np.dtype(recipe.input.dtype)
        self._batch_number = 0
        self._fixed_batch: int | None = None
        self._sizes: list[int] = []
        self._samples: PinnedSamples | None = None
        self._free_slots: deque[Slot] = deque()
        self._in_flight: deque[Slot] = deque()
        self._slots: list[Slot] = []
        self._opened = contextlib.ExitStack()
        self._prepared = contextlib.ExitStack()

    @property
    def _sample_bytes(self) -> int:
        return int(np.prod(self._sample_shape)) * self._sample_dtype.itemsize

    @abc.abstractmethod
    def _open_model(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Read the model and set `version`; the GPU is current.

        Returns the shape of one sample's output, () for a class, and its dtype. What must be freed
        goes onto `self._opened`; a model with a fixed batch sets `self._fixed_batch`.
        """

    @abc.abstractmethod
    def _prepare_size(self, slot: Slot, size: int) -> None:
        """Warm up batches of `size` in the slot, capture their graph; the GPU is current."""

    @abc.abstractmethod
    def _start(self, slot: Slot, size: int) -> None:
        """Start the network on a prepared size, on the slot's compute stream. Timed."""

    @abc.abstractmethod
    def _make_streams(self) -> list[tuple[Any, Any]]:
        """Each slot's stream for copies and stream for computation."""

    def _prepare_samples(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Images [n, side, side, 3] as they go to the device, [n, *_sample_shape]. Not timed."""
        return normalise(images, self._recipe)

    def open(self) -> None:
        from ck_mlperf.loadgen.engines.cuda import Gpu

        self._gpu = gpu = Gpu(self.cuda_device)
        self.device = f"GPU {gpu.ordinal}, {gpu.name}, compute capability {gpu.compute_capability}"
        try:
            with gpu:
                self._output_shape, self._output_dtype = self._open_model()
                self._slots = [Slot(gpu, *streams) for streams in self._make_streams()]
        except BaseException:
            self.close()
            raise

    def prepare(self, sizes: Sequence[int]) -> None:
        with self._gpu as gpu:
            self._prepared.close()
            self._sizes = [self._fixed_batch] if self._fixed_batch else sorted(set(sizes))
            try:
                self._prepare_slots()
            except (gpu.cuda.MemoryError, MemoryError) as error:
                raise UserError(
                    f"{self.device}: no memory for {self.depth} batches of {self._sizes[-1]} at a "
                    f"time ({error}); {gpu.describe_memory()}. Lower CK_BATCH_SIZE, or end what "
                    "else runs on this GPU (nvidia-smi lists it)"
                ) from error
            gpu.synchronize()
        self._free_slots = deque(self._slots)

    def _prepare_slots(self) -> None:
        for slot in self._slots:
            self._allocate(slot, self._sizes[-1])
        # The largest first: its memory then serves the others as well. Each size for all slots in
        # turn: the library still has what it worked out for that size.
        for size in reversed(self._sizes):
            for slot in self._slots:
                self._prepare_size(slot, size)

    def load(self, images: NDArray[np.uint8]) -> None:
        from ck_mlperf.loadgen.engines.cuda import PinnedSamples

        self.unload()
        with self._gpu as gpu:
            self._samples = samples = PinnedSamples(
                gpu.cuda, len(images), self._sample_shape, self._sample_dtype
            )
        for slot in self._slots:
            slot.places = samples.place(slot.input, self._sizes[-1])
        # In pieces: normalised images of a whole large set would need its memory twice.
        for begin in range(0, len(images), _IMAGES_AT_A_TIME):
            piece = images[begin : begin + _IMAGES_AT_A_TIME]
            samples.array[begin : begin + len(piece)] = self._prepare_samples(piece)

    def unload(self) -> None:
        samples, self._samples = self._samples, None
        if samples is not None:
            with self._gpu:
                samples.free()

    def enqueue(self, rows: Sequence[int]) -> None:
        assert self._samples is not None
        self._batch_number += 1
        count = len(rows)
        size = self._sizes[bisect.bisect_left(self._sizes, count)]
        slot = self._free_slots.popleft()
        slot.count = count
        is_alone = not self._in_flight
        self._in_flight.append(slot)
        try:
            with self._gpu:
                self._bring(slot, rows, size, is_alone)
                self._start(slot, size)
                done = slot.done if count <= _SPIN_UP_TO else slot.done_asleep
                done.record(slot.compute_stream)
        except Exception as error:  # those of pycuda and of the network's library have no base
            raise self._describe(f"failed: {error}") from error

    def _bring(self, slot: Slot, rows: Sequence[int], size: int, is_alone: bool) -> None:
        """Start the copy of the samples into the slot's input, for a batch of `size`. Timed.

        A batch that has the GPU to itself gains nothing from a second stream.
        """
        assert self._samples is not None
        if is_alone or slot.copy_stream is slot.compute_stream:
            self._samples.copy_batch(rows, slot.places, slot.compute_stream)
            return
        self._samples.copy_batch(rows, slot.places, slot.copy_stream)
        slot.copied.record(slot.copy_stream)
        slot.compute_stream.wait_for_event(slot.copied)

    def collect(self) -> NDArray[np.int32]:
        slot = self._in_flight[0]
        try:
            with self._gpu:
                (slot.done if slot.count <= _SPIN_UP_TO else slot.done_asleep).synchronize()
        except Exception as error:
            raise self._describe(f"failed: {error}") from error
        labels = read_labels(slot.answers[: slot.count], self._recipe, self._describe_answer)
        self._free_slots.append(self._in_flight.popleft())
        return labels

    def close(self) -> None:
        with self._gpu as gpu:
            with contextlib.suppress(gpu.cuda.Error):  # all calls raise after an error on the GPU
                gpu.synchronize()  # work under way uses what is freed here
            self.unload()
            self._prepared.close()
            self._opened.close()
            self._slots = []
        self._gpu.close()

    def _allocate(self, slot: Slot, largest: int) -> None:
        """The slot's buffers for batches of up to `largest`; freed by `self._prepared`."""
        from ck_mlperf.loadgen.engines.cuda import PinnedArray

        cuda = self._gpu.cuda
        input_bytes = largest * self._sample_bytes
        answers = PinnedArray(cuda, (largest, *self._output_shape), self._output_dtype)
        self._prepared.callback(answers.free)
        slot.answers = answers.array
        device_input = cuda.mem_alloc(input_bytes)
        self._prepared.callback(device_input.free)
        cuda.memset_d8(device_input, 0, input_bytes)  # a batch's padding must be numbers
        slot.input, slot.output = int(device_input), answers.address

    def _describe(self, what: str) -> EngineError:
        return EngineError(
            f"{self.name}: batch {self._batch_number} of {self._path} on {self.device} {what}"
        )

    def _describe_answer(self, what: str) -> EngineError:
        return self._describe(f"gave {what}. Check the model, and the mean and scale of its recipe")
