"""The engines' way to the GPU, on a machine that has an NVIDIA GPU and pycuda."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.engines import EngineError, tensorrt
from ck_mlperf.loadgen.engines.cuda import Gpu, Graph, PinnedSamples
from ck_mlperf.loadgen.engines.cuda_engine import CudaEngine, Slot
from ck_mlperf.loadgen.engines.onnxruntime_cpu import OnnxRuntimeCpu
from ck_mlperf.loadgen.engines.onnxruntime_cuda import OnnxRuntimeCuda
from ck_mlperf.loadgen.engines.tensorrt import TensorRt
from ck_mlperf.models.recipe import ModelRecipe, load_model_recipe
from ck_mlperf.tensorrt.api.interface import IoTensor

from ...builders.plans import KEY
from .conftest import SIDE

FIRST_BYTE = """
__global__ void first_byte(const unsigned char *images, int *classes, int bytes, int count)
{
    const int sample = blockIdx.x * blockDim.x + threadIdx.x;
    if (sample < count)
        classes[sample] = images[(size_t)sample * bytes];
}
"""


class FirstByte(CudaEngine):
    """Takes a sample's first byte for its class; keeps which sizes it was started with."""

    name = "first-byte"
    version = "1"

    def __init__(self, recipe: ModelRecipe, device: int = 0) -> None:
        super().__init__(Path("first-byte"), recipe, device)
        self.started: list[int] = []
        self.fails_at: int | None = None

    def _open_model(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        from pycuda.compiler import SourceModule

        self._kernel = SourceModule(FIRST_BYTE).get_function("first_byte")
        self._kernel.prepare("PPii")
        self._opened.callback(setattr, self, "_kernel", None)
        return (), np.dtype(np.int32)

    def _make_streams(self) -> list[tuple[Any, Any]]:
        streams = [self._gpu.cuda.Stream() for _ in range(self.depth)]
        return [(stream, stream) for stream in streams]

    def _prepare_size(self, slot: Slot, size: int) -> None:
        self._start(slot, size)

    def _start(self, slot: Slot, size: int) -> None:
        self.started.append(size)
        if self.fails_at == len(self.started):
            raise RuntimeError("the network broke")
        self._kernel.prepared_async_call(
            (1, 1), (512, 1, 1), slot.compute_stream, slot.input, slot.output,
            self._sample_bytes, size,
        )  # fmt: skip


@pytest.fixture(scope="module")
def gpu() -> Iterator[Gpu]:
    try:
        gpu = Gpu(0)
    except UserError as error:
        pytest.skip(f"NOT RUN: needs an NVIDIA GPU and pycuda: {error}")
    yield gpu
    gpu.close()


def make_images(count: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def read_free_bytes(gpu: Gpu) -> int:
    with gpu:
        free: int = gpu.cuda.mem_get_info()[0]
    return free


@pytest.mark.parametrize("side", [28, 224, 227])
@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_each_way_brings_the_right_samples(gpu: Gpu, side: int, count: int) -> None:
    images = make_images(64, side)
    rows = tuple(np.random.default_rng(count).permutation(64)[:count].tolist())
    with gpu:
        stream = gpu.cuda.Stream()
        samples = PinnedSamples(gpu.cuda, 64, images.shape[1:], images.dtype)
        samples.array[:] = images
        target = gpu.cuda.mem_alloc(images.nbytes)
        places = samples.place(int(target), 64)
        for chosen, way in [
            (rows, samples.copy_batch),
            (np.array(rows), samples.copy_batch),
            (range(64 - count, 64), samples.copy_batch),
            (rows, samples.copy_each),
        ]:
            gpu.cuda.memset_d8(target, 7, images.nbytes)
            way(chosen, places, stream)
            stream.synchronize()
            got = np.empty_like(images)
            gpu.cuda.memcpy_dtoh(got, target)
            assert (got[:count] == images[list(chosen)]).all()
            assert (got[count:] == 7).all()
        for owned in (samples, target):
            owned.free()


def test_batches_in_flight_come_back_in_order(gpu: Gpu, recipe: ModelRecipe) -> None:
    images = make_images(300)
    rng = np.random.default_rng(1)
    with FirstByte(recipe) as engine:
        engine.prepare([1, 4, 32, 100])
        engine.load(images)
        engine.started.clear()
        batches = [tuple(rng.integers(0, 300, n).tolist()) for n in (1, 100, 3, 5, 99, 32, 2, 1)]
        batches.append(tuple(range(100, 200)))
        for before, rows in itertools.pairwise([None, *batches]):
            engine.enqueue(rows)
            if before:
                assert engine.collect().tolist() == images[list(before), 0, 0, 0].tolist()
        assert engine.collect().tolist() == images[list(batches[-1]), 0, 0, 0].tolist()
        assert engine.started == [1, 100, 4, 32, 100, 32, 4, 1, 100]


def test_the_labels_offset_is_taken_off_and_bad_classes_are_refused(
    gpu: Gpu, recipe: ModelRecipe
) -> None:
    images = make_images(3)
    images[:, 0, 0, 0] = [5, 6, 7]
    with FirstByte(dataclasses.replace(recipe, labels_offset=1, classes=7)) as engine:
        engine.prepare([2])
        engine.load(images)
        engine.enqueue([0, 1])
        assert engine.collect().tolist() == [4, 5]
        engine.enqueue([2])
        with pytest.raises(EngineError, match=r"first-byte: batch 2 .* a class outside 0 to 6"):
            engine.collect()


def test_nothing_stays_on_the_gpu(gpu: Gpu, recipe: ModelRecipe) -> None:
    """A leak would be 57 MB each time; CUDA itself keeps a block of 2 MB or two."""

    def use(fails_at: int | None) -> None:
        with FirstByte(recipe) as engine:
            engine.prepare([65536])
            engine.load(make_images(100))
            engine.fails_at = fails_at and len(engine.started) + fails_at
            for _ in range(4):
                engine.enqueue([0, 1])
                engine.collect()

    use(None)
    free = read_free_bytes(gpu)
    use(None)
    for fails_at in (1, 3):
        with pytest.raises(EngineError, match="the network broke"):
            use(fails_at)
    assert free - read_free_bytes(gpu) < 16e6


def test_a_graph_repeats_what_was_recorded(gpu: Gpu) -> None:
    pytest.importorskip("cuda.bindings", reason="NOT RUN: needs cuda-bindings")
    with gpu:
        stream = gpu.cuda.Stream()
        source, target = (gpu.cuda.mem_alloc(4) for _ in range(2))
        graph = Graph(
            stream, lambda: gpu.cuda.memcpy_dtod_async(int(target), int(source), 4, stream)
        )
        for value in (3, 4):
            gpu.cuda.memset_d32(source, value, 1)
            graph.launch()
            stream.synchronize()
            got = np.zeros(1, np.int32)
            gpu.cuda.memcpy_dtoh(got, target)
            assert got[0] == value

        def fail() -> None:
            raise ValueError("not captured")

        with pytest.raises(ValueError, match="not captured"):
            Graph(stream, fail)
        gpu.cuda.memset_d32_async(target, 9, 1, stream)  # the stream is free again
        stream.synchronize()
        graph.free()


def test_onnxruntime_on_the_gpu_agrees_with_the_cpu(gpu: Gpu, repository: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("NOT RUN: needs onnxruntime-gpu")
    model = repository / "package" / "model-onnx-digits" / "digits.onnx"
    side = load_model_recipe(model).image.side
    images = make_images(64, side)
    labels = []
    for engine in (OnnxRuntimeCpu(model), OnnxRuntimeCuda(model)):
        with engine:
            engine.prepare([32])
            engine.load(images)
            got = []
            for begin in (0, 32):
                engine.enqueue(range(begin, begin + 32))
                got.append(engine.collect())
            labels.append(np.concatenate(got))
    assert (labels[0] == labels[1]).mean() > 0.95  # the convolutions are not the same to the bit


class FakeFlavour:
    """Stands in for TensorRT and for its loaded plan, which takes first bytes too."""

    name, version = "tensorrt_rtx", "1"
    tensors = (
        IoTensor("images", True, "uint8", (-1, SIDE, SIDE, 3)),
        IoTensor("class", False, "int32", (-1,)),
    )

    def __init__(self, captures_graphs: bool) -> None:
        self.captures_graphs = captures_graphs
        self.executed: list[int] = []

    def load_plan(self, plan: bytes) -> FakeFlavour:
        assert plan == b"plan"
        return self

    def read_format(self, name: str) -> str:
        return "LINEAR"

    def create_context(self, stream: int) -> FakeContext:
        return FakeContext(self.executed)


class FakeContext:
    """Keeps TensorRT's rules: it has one shape at a time, set before it is executed."""

    def __init__(self, executed: list[int]) -> None:
        self._executed = executed
        self._size = 0
        self._addresses: dict[str, int] = {}

    def set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self._size = shape[0]

    def set_address(self, name: str, address: int) -> None:
        self._addresses[name] = address

    def execute(self, stream: int) -> None:
        from cuda.bindings import driver

        size, addresses = self._size, self._addresses
        self._executed.append(size)
        copy = driver.CUDA_MEMCPY2D()
        copy.srcMemoryType = copy.dstMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
        copy.srcDevice, copy.srcPitch = addresses["images"], SIDE * SIDE * 3
        copy.dstDevice, copy.dstPitch = addresses["class"], 4
        copy.WidthInBytes, copy.Height = 1, size
        for error in (
            *driver.cuMemsetD8Async(addresses["class"], 0, 4 * size, stream),
            *driver.cuMemcpy2DAsync(copy, stream),
        ):
            assert error == driver.CUresult.CUDA_SUCCESS


@pytest.mark.parametrize("captures_graphs", [True, False])
def test_the_tensorrt_engine_up_to_tensorrt(
    gpu: Gpu, recipe: ModelRecipe, monkeypatch: pytest.MonkeyPatch, captures_graphs: bool
) -> None:
    pytest.importorskip("cuda.bindings", reason="NOT RUN: needs cuda-bindings")
    flavour = FakeFlavour(captures_graphs)
    sidecar = SimpleNamespace(key=KEY, recipe=recipe)
    targets = []
    monkeypatch.setattr(tensorrt, "read_sidecar", lambda plan: sidecar)
    monkeypatch.setattr(
        tensorrt, "read_plan", lambda plan, target: targets.append(target) or b"plan"
    )
    monkeypatch.setattr(tensorrt, "load_flavour", lambda name: flavour)
    monkeypatch.setattr(tensorrt, "make_flavour", lambda name, version: flavour)
    images = make_images(100)
    rng = np.random.default_rng(2)
    with TensorRt(Path("model.plan")) as engine:
        assert engine.name == "tensorrt-rtx"
        assert targets[0].gpu.compute_capability in engine.device
        engine.prepare([1, 8, 32])
        engine.load(images)
        flavour.executed.clear()
        batches = [tuple(rng.integers(0, 100, n).tolist()) for n in (32, 32, 5, 1, 1, 32, 2)]
        for before, rows in itertools.pairwise([None, *batches]):
            engine.enqueue(rows)
            if before:
                assert engine.collect().tolist() == images[list(before), 0, 0, 0].tolist()
        assert engine.collect().tolist() == images[list(batches[-1]), 0, 0, 0].tolist()
        # A graph is launched without asking the library.
        assert flavour.executed == ([] if captures_graphs else [32, 32, 8, 1, 1, 32, 8])
