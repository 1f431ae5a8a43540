"""Ways of samples into a GPU's memory, and an engine that does nothing else: for gpu.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ck_mlperf.loadgen.engines.cuda import Gpu, PinnedArray, PinnedSamples
from ck_mlperf.loadgen.engines.cuda_engine import CudaEngine, Slot
from ck_mlperf.loadgen.engines.prepare import Gathering
from ck_mlperf.models.recipe import ModelRecipe

SIDE = 224
SAMPLE_SHAPE = (SIDE, SIDE, 3)
SAMPLE_BYTES = SIDE * SIDE * 3
IMAGES = 1024
BATCHES = (1, 2, 4, 8, 32, 128, 512)
STREAMS = 3

UINT8_RECIPE = {
    "format": 1,
    "name": "null",
    "dataset": "imagenet",
    "input": {"name": "images", "layout": "NHWC", "dtype": "uint8"},
    "image": {
        "side": SIDE,
        "crop": 0.875,
        "interpolation": "area",
        "channels": "rgb",
        "aspect": "keep",
    },
    "mean": [0, 0, 0],
    "scale": [1, 1, 1],
    "output": {"name": "class", "kind": "class"},
    "classes": 1000,
    "labels_offset": 0,
    "max_batch": None,
    "weights": "random",
}


def make_images(count: int = IMAGES) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SAMPLE_SHAPE), np.uint8)


class CopyOnly(CudaEngine):
    """Takes batches to the device and answers 0: nothing is computed."""

    name = "copy-only"
    version = "1"

    def __init__(self) -> None:
        super().__init__(Path("none"), ModelRecipe.from_dict(UINT8_RECIPE), 0)

    def _open_model(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return (), np.dtype(np.int32)

    def _make_streams(self) -> list[tuple[Any, Any]]:
        streams = [self._gpu.cuda.Stream() for _ in range(self.depth)]
        return [(stream, stream) for stream in streams]

    def _prepare_size(self, slot: Slot, size: int) -> None:
        self._gpu.cuda.memset_d32(slot.output, 0, size)

    def _start(self, slot: Slot, size: int) -> None:
        pass


class Shuffled(CopyOnly):
    """The same for a test that asks for samples in random order: no two are neighbours."""

    def enqueue(self, rows: Sequence[int]) -> None:
        super().enqueue(self._order[: len(rows)])

    def load(self, images: np.ndarray) -> None:
        self._order = tuple(np.random.default_rng(0).permutation(len(images)).tolist())
        super().load(images)


def time_copies(
    copy: Callable[[int, Sequence[int]], None],
    batches: Sequence[Sequence[int]],
    streams: Sequence[Any],
    cuda: Any,
) -> float:
    """Samples per second of copy(slot, rows) calls that take turns on the streams."""
    events = [cuda.Event(cuda.event_flags.DISABLE_TIMING) for _ in streams]
    size = len(batches[0])
    count = max(12, min(2000, 12_000 // size))
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        for number in range(count):
            slot = number % len(streams)
            if number >= len(streams):
                events[slot].synchronize()
            copy(slot, batches[number % len(batches)])
            events[slot].record(streams[slot])
        for event in events:
            event.synchronize()
        rates.append(count * size / (time.perf_counter() - start))
    return max(rates)


def measure_ways() -> dict[str, Any]:
    """Samples per second into the device, by way and batch; the link's limit in samples/s."""
    rng = np.random.default_rng(0)
    gpu = Gpu(0)
    cuda, uint8, largest = gpu.cuda, np.dtype(np.uint8), max(BATCHES)
    rates: dict[str, dict[int, float]] = {}
    with gpu:
        streams = [cuda.Stream() for _ in range(STREAMS)]
        gathering = Gathering(gpu, SAMPLE_BYTES)
        samples = PinnedSamples(cuda, IMAGES, SAMPLE_SHAPE, uint8)
        samples.array[:] = make_images()
        addresses = samples.list_addresses()
        targets = [int(cuda.mem_alloc(largest * SAMPLE_BYTES)) for _ in streams]
        staged = [PinnedArray(cuda, (largest, *SAMPLE_SHAPE), uint8) for _ in streams]
        picked = [PinnedArray(cuda, (largest,), np.dtype(np.uint64)) for _ in streams]
        places = [samples.place(target, largest) for target in targets]

        def copy_once(slot: int, rows: Sequence[int]) -> None:
            cuda.memcpy_htod_async(targets[slot], samples.array[: len(rows)], streams[slot])

        def copy_each(slot: int, rows: Sequence[int]) -> None:
            samples.copy_each(rows, places[slot], streams[slot])

        def copy_batched(slot: int, rows: Sequence[int]) -> None:
            samples.copy_batch(rows, places[slot], streams[slot])

        def gather_on_host(slot: int, rows: Sequence[int]) -> None:
            batch = staged[slot].array[: len(rows)]
            np.take(samples.array, rows, axis=0, out=batch, mode="clip")
            cuda.memcpy_htod_async(targets[slot], batch, streams[slot])

        def gather(slot: int, rows: Sequence[int]) -> None:
            np.take(addresses, rows, out=picked[slot].array[: len(rows)], mode="clip")
            gathering.start(picked[slot].address, targets[slot], len(rows), streams[slot])

        ways = {
            "one contiguous copy": copy_once,
            "a copy per sample": copy_each,
            "a batched copy": copy_batched,
            "a gather on the host": gather_on_host,
            "the gather kernel": gather,
        }
        for batch in BATCHES:
            rows = [tuple(rng.integers(0, IMAGES, batch).tolist()) for _ in range(64)]
            for name, way in ways.items():
                rates.setdefault(name, {})[batch] = time_copies(way, rows, streams, cuda)
        gather(0, rows[0])
        got = np.empty((largest, *SAMPLE_SHAPE), np.uint8)
        streams[0].synchronize()
        cuda.memcpy_dtoh(got, targets[0])
        assert (got == samples.array[list(rows[0])]).all()
    return {"ways": rates, "link": rates["one contiguous copy"][largest], "device": gpu.name}
