"""The way to the GPU, as far as it can be tested without one."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.engines import cuda
from ck_mlperf.loadgen.engines.cuda import Graph, PinnedSamples
from ck_mlperf.loadgen.engines.cuda_engine import CudaEngine, Slot
from ck_mlperf.models.recipe import ModelRecipe

from ...fakes.cuda import FakeCuda, FakeGpu, FakeMemoryError
from .conftest import SIDE


class Idle(CudaEngine):
    """Computes nothing."""

    name = "idle"
    version = "1"

    def __init__(self, recipe: ModelRecipe, device: int = 0) -> None:
        super().__init__(Path("idle"), recipe, device)
        self.prepared: list[int] = []
        self.error: Exception | None = None
        """Raised by the preparation of a size."""

    def _open_model(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return (), np.dtype(np.int32)

    def _make_streams(self) -> list[tuple[Any, Any]]:
        stream = self._gpu.cuda.Stream()
        return [(stream, stream) for _ in range(self.depth)]

    def _prepare_size(self, slot: Slot, size: int) -> None:
        if self.error is not None:
            raise self.error
        self.prepared.append(size)

    def _start(self, slot: Slot, size: int) -> None: ...


def test_without_pycuda_the_run_says_so(
    monkeypatch: pytest.MonkeyPatch, recipe: ModelRecipe
) -> None:
    monkeypatch.setattr(cuda, "list_cuda_devices", lambda: (0,))
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(UserError, match="pip install pycuda"):
        Idle(recipe).open()


def test_a_pycuda_that_does_not_load_is_another_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is installed: to install it again as it is would change nothing."""
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").touch()
    said = "libcurand.so.10: cannot open shared object file"
    (tmp_path / "pycuda" / "driver.py").write_text(f"raise ImportError({said!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(UserError, match=rf"does not load: {said}.*--force-reinstall"):
        cuda.import_pycuda()
    sys.modules.pop("pycuda", None)


class FakeDriver:
    """cuda-bindings' driver: notes what is called; one call may fail."""

    CUresult = SimpleNamespace(
        CUDA_SUCCESS=SimpleNamespace(name="CUDA_SUCCESS"),
        CUDA_ERROR_OUT_OF_MEMORY=SimpleNamespace(name="CUDA_ERROR_OUT_OF_MEMORY"),
        CUDA_ERROR_INVALID_VALUE=SimpleNamespace(name="CUDA_ERROR_INVALID_VALUE"),
    )
    CUstream = staticmethod("stream {}".format)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)

    def __init__(self) -> None:
        self.called: list[tuple[Any, ...]] = []
        self.failing: tuple[str, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> tuple[Any, ...]:
            self.called.append((name, *arguments))
            is_failing = self.failing is not None and self.failing[0] == name
            error = self.failing[1] if self.failing and is_failing else self.CUresult.CUDA_SUCCESS
            given = {"cuStreamEndCapture": ("graph",), "cuGraphInstantiate": ("executable",)}
            return (error, *given.get(name, ()))

        return call


def copy_at_once(
    targets: Any, sources: Any, sizes: Any, count: int, attributes: Any, first: Any, *rest: Any
) -> int:
    """cuMemcpyBatchAsync on the host, as cuda.h declares it."""
    sets, failed, stream = rest
    assert (attributes[0], first[0], sets, stream) == (1, 0, 1, 7)
    failed[0] = 0
    for target, source, size in zip(targets[:count], sources[:count], sizes[:count], strict=True):
        ctypes.memmove(target, source, size)
    return 0


@pytest.mark.parametrize("rows", [(3, 1, 1, 0), [2, 0], np.array([5, 3, 4]), (0, 2) * 5])
def test_a_batched_copy_hands_over_what_cuda_declares(
    monkeypatch: pytest.MonkeyPatch, rows: Any
) -> None:
    words, size = ctypes.POINTER(ctypes.c_uint64), ctypes.c_size_t
    ints, pointer = ctypes.POINTER(ctypes.c_int), ctypes.c_void_p
    types = (ctypes.c_int, words, words, words, size, ints, words, size, words, pointer)
    library = SimpleNamespace(cuMemcpyBatchAsync=ctypes.CFUNCTYPE(*types)(copy_at_once))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    cuda = FakeCuda()
    samples = PinnedSamples(cuda, 6, (2, 3), np.dtype(np.uint8))
    samples.array[:] = np.arange(36).reshape(6, 2, 3)
    target = np.full((12, 2, 3), 99, np.uint8)
    samples.copy_batch(rows, samples.place(target.ctypes.data, 12), SimpleNamespace(handle=7))
    assert (target[: len(rows)] == samples.array[list(rows)]).all()
    assert (target[len(rows) :] == 99).all()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    driver = FakeDriver()
    monkeypatch.setattr(cuda, "import_cuda_bindings", lambda: driver)
    return driver


def test_a_graph_is_on_the_gpu_before_its_first_launch(driver: FakeDriver) -> None:
    Graph(SimpleNamespace(handle=7), lambda: driver.called.append(("recorded",)))
    names = [name for name, *_ in driver.called]
    assert names[:3] == ["cuStreamBeginCapture", "recorded", "cuStreamEndCapture"]
    assert ("cuGraphUpload", "executable", "stream 7") in driver.called
    assert names.index("cuGraphInstantiate") < names.index("cuGraphUpload")


@pytest.mark.parametrize("call", ["cuStreamBeginCapture", "cuGraphInstantiate", "cuGraphUpload"])
def test_memory_that_a_graph_does_not_get_is_told_from_other_errors(
    driver: FakeDriver, call: str
) -> None:
    errors = {
        MemoryError: driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY,
        RuntimeError: driver.CUresult.CUDA_ERROR_INVALID_VALUE,
    }
    for kind, error in errors.items():
        driver.failing = (call, error)
        with pytest.raises(kind, match=f"CUDA graph: {error.name}") as raised:
            Graph(SimpleNamespace(handle=7), lambda: None)
        assert raised.type is kind


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """The GPU that engines open."""
    gpu = FakeGpu(0)
    monkeypatch.setattr(cuda, "Gpu", lambda ordinal: gpu)
    return gpu


def test_sizes_are_prepared_from_the_largest_on_in_each_slot(
    gpu: FakeGpu, recipe: ModelRecipe
) -> None:
    with Idle(recipe) as engine:
        assert engine.device == "GPU 0, NVIDIA H200, compute capability 9.0"
        engine.prepare([1, 64, 8, 64])
    assert engine.prepared == [64, 64, 8, 8, 1, 1]


NO_MEMORY = (
    r"GPU 0, NVIDIA H200, .*: no memory for 2 batches of 64 at a time \(cuMemAlloc failed: .*\); "
    r"1\.0 of 2\.0 GB are free\. Lower CK_BATCH_SIZE"
)


@pytest.mark.parametrize("kind", [FakeMemoryError, MemoryError])
def test_too_little_memory_for_graphs_is_told_with_what_there_is(
    gpu: FakeGpu, recipe: ModelRecipe, kind: type[Exception]
) -> None:
    with Idle(recipe) as engine:
        engine.error = kind("cuMemAlloc failed: out of memory")
        with pytest.raises(UserError, match=NO_MEMORY):
            engine.prepare([1, 64, 8])


def test_too_little_memory_for_samples_is_told_with_what_there_is(
    gpu: FakeGpu, recipe: ModelRecipe
) -> None:
    with Idle(recipe) as engine:
        gpu.cuda.most_bytes = 64 * SIDE * SIDE * 3
        engine.prepare([64])
        gpu.cuda.most_bytes -= 1
        with pytest.raises(UserError, match=NO_MEMORY):
            engine.prepare([1, 64, 8])


def test_other_errors_are_not_taken_for_too_little_memory(
    gpu: FakeGpu, recipe: ModelRecipe
) -> None:
    with Idle(recipe) as engine:
        engine.error = RuntimeError("the network broke")
        with pytest.raises(RuntimeError, match="the network broke"):
            engine.prepare([1])


def test_without_a_driver_the_run_says_so(
    monkeypatch: pytest.MonkeyPatch, recipe: ModelRecipe
) -> None:
    def find_none() -> tuple[int, ...]:
        raise UserError("no NVIDIA driver is installed")

    monkeypatch.setattr(cuda, "list_cuda_devices", find_none)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(UserError, match="no NVIDIA driver is installed"):
        Idle(recipe).open()


def test_a_gpu_beyond_the_last_is_refused(
    monkeypatch: pytest.MonkeyPatch, recipe: ModelRecipe
) -> None:
    monkeypatch.setattr(cuda, "list_cuda_devices", lambda: (0, 1))
    with pytest.raises(UserError, match="GPU 2 was asked for, and CUDA sees 2, numbered from 0"):
        Idle(recipe, device=2).open()
