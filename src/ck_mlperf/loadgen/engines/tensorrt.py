"""TensorRT, of every flavour: runs a plan that package:model-tensorrt-convert-from-onnx built."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.engines.cuda_engine import CudaEngine, Slot
from ck_mlperf.loadgen.engines.prepare import (
    Gathering,
    Preparing,
    can_gather,
    can_prepare,
    pack,
    shape_sample,
)
from ck_mlperf.machine import gpus as gpu_kind
from ck_mlperf.models.recipe import ModelRecipe
from ck_mlperf.tensorrt.api import load_flavour, make_flavour
from ck_mlperf.tensorrt.key import Target
from ck_mlperf.tensorrt.plan_file import read_plan, read_sidecar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ck_mlperf.loadgen.engines.cuda import Graph, PinnedArray
    from ck_mlperf.tensorrt.api.interface import Context, LoadedPlan

# In TensorRT for RTX, the first run compiles and the second captures a graph.
_WARM_UP_RUNS = 3
# In batches up to this size, the kernel that prepares the samples reads them from pinned memory, so
# that a query is one launch.
_READ_FROM_HOST_UP_TO = 8


@dataclasses.dataclass
class _Lane:
    """A stream and what computes on it: the slots of a lane run one after another.

    input: device address of the network's input if the slots hold images, else 0.
    """

    stream: Any
    context: Context | None = None
    size: int = 0
    input: int = 0


class TensorRt(CudaEngine):
    """Two execution contexts, each on its own stream, and a CUDA graph per slot and batch size.

    Two networks that run at the same time fill the gaps between each other's layers. More than two
    slots take turns on them, so that the samples of the next batch are on the GPU when a network
    ends. (With one slot for each, both networks often ended together, and one of them waited for
    its samples.) Samples have the type of the plan's input, or are uint8 images, which a kernel
    prepares before the network runs. A flavour that captures its graphs itself needs a context for
    each slot.
    """

    at_once = 2
    depth = 6

    def __init__(self, model: Path, recipe: ModelRecipe | None = None, device: int = 0) -> None:
        """Raises UserError if the plan's sidecar is missing or damaged."""
        self._sidecar = read_sidecar(model)
        super().__init__(model, recipe or self._sidecar.recipe, device)
        key = self._sidecar.key
        self.name = key.flavour.replace("_", "-")
        self._captures_graphs = make_flavour(key.flavour, key.version).captures_graphs
        if not self._captures_graphs:
            self.depth = self.at_once
        self.options = {
            "plan": key.to_dict(),
            "contexts": self.depth if not self._captures_graphs else self.at_once,
            "batches_in_flight": self.depth,
            "cuda_graphs": "ours" if self._captures_graphs else "TensorRT's own",
            "read_from_host_up_to": _READ_FROM_HOST_UP_TO,
        }
        self._plan: LoadedPlan | None = None
        self._kernel: Preparing | Gathering | None = None
        self._lanes: dict[int, _Lane] = {}
        self._sources: dict[int, PinnedArray] = {}
        self._copied: dict[int, int] = {}
        self._addresses: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._graphs: dict[tuple[int, int], Graph] = {}

    def _make_streams(self) -> list[tuple[Any, Any]]:
        cuda = self._gpu.cuda
        copies = cuda.Stream()
        streams = [cuda.Stream() for _ in range(self.at_once)]
        self._lanes = {stream.handle: _Lane(stream) for stream in streams}
        return [(copies, streams[number % self.at_once]) for number in range(self.depth)]

    def _open_model(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        flavour = load_flavour(self._sidecar.key.flavour)
        kind = gpu_kind.Gpu(self._gpu.name, self._gpu.compute_capability)
        target = Target(flavour.name, flavour.version, kind)
        content = read_plan(self._path, target, self._sidecar)
        self.model_sha256 = self._sidecar.plan_sha256
        self._plan = plan = flavour.load_plan(content)
        self._opened.callback(self._forget)
        self.version = flavour.version
        tensors = {tensor.name: tensor for tensor in plan.tensors}
        recipe = self._recipe
        wanted = {
            recipe.input.name: (True, recipe.input.dtype, shape_sample(recipe, "LINEAR")),
            recipe.output.name: (False, None, None),
        }
        for name, (is_input, dtype, shape) in wanted.items():
            tensor = tensors.get(name)
            if (
                tensor is None
                or tensor.is_input != is_input
                or (is_input and (tensor.dtype, tensor.shape[1:]) != (dtype, shape))
                or tensor.shape[:1] != tensors[recipe.input.name].shape[:1]  # a row for a sample
            ):
                raise UserError(
                    f"{self._path}: {name} of its recipe is not what the plan has: "
                    f"{', '.join(map(str, tensors.values()))}. Build it again"
                )
        self._layout = plan.read_format(recipe.input.name)
        self._choose_kernel()
        batch = tensors[recipe.input.name].shape[0]
        self._fixed_batch = batch if batch > 0 else None
        output = tensors[recipe.output.name]
        return output.shape[1:], np.dtype(output.dtype)

    def _choose_kernel(self) -> None:
        """Choose what samples are in pinned memory, and the kernel that prepares them."""
        recipe = self._recipe
        self._sample_shape = shape_sample(recipe, self._layout)
        self._network_bytes = self._sample_bytes
        if self._sidecar.key.input == "uint8" and can_prepare(recipe):
            self._kernel = Preparing(self._gpu, recipe, self._layout)
            self._sample_shape = (recipe.image.side, recipe.image.side, 3)
            self._sample_dtype = np.dtype(np.uint8)
        elif can_gather(self._network_bytes):
            self._kernel = Gathering(self._gpu, self._network_bytes)
        if self._kernel is not None:
            self._opened.callback(self._kernel.free)

    def _prepare_samples(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        if isinstance(self._kernel, Preparing):
            return images
        return pack(super()._prepare_samples(images), self._layout)

    def load(self, images: NDArray[np.uint8]) -> None:
        super().load(images)
        assert self._samples is not None
        self._addresses = self._samples.list_addresses()
        for sources in self._sources.values():
            sources.array[:] = self._addresses[0]  # padding of a batch must be loaded samples

    def _prepare_slots(self) -> None:
        if isinstance(self._kernel, Preparing):
            for lane in self._lanes.values():
                allocation = self._gpu.cuda.mem_alloc(self._sizes[-1] * self._network_bytes)
                self._prepared.callback(allocation.free)
                lane.input = int(allocation)
        super()._prepare_slots()

    def _allocate(self, slot: Slot, largest: int) -> None:
        from ck_mlperf.loadgen.engines.cuda import PinnedArray

        super()._allocate(slot, largest)
        cuda = self._gpu.cuda
        sources = PinnedArray(cuda, (_READ_FROM_HOST_UP_TO,), np.dtype(np.uint64))
        self._prepared.callback(sources.free)
        self._sources[id(slot)] = sources
        if isinstance(self._kernel, Preparing):
            steps = np.arange(largest, dtype=np.uint64) * np.uint64(self._sample_bytes)
            copied = cuda.mem_alloc(steps.nbytes)
            self._prepared.callback(copied.free)
            cuda.memcpy_htod(copied, steps + np.uint64(slot.input))
            self._copied[id(slot)] = int(copied)

    def _bring(self, slot: Slot, rows: Sequence[int], size: int, is_alone: bool) -> None:
        if self._kernel is None or size > _READ_FROM_HOST_UP_TO:
            super()._bring(slot, rows, size, is_alone)
            return
        sources = self._sources[id(slot)].array
        if len(rows) == 1:
            sources[0] = self._addresses[rows[0]]
        else:
            np.take(self._addresses, rows, out=sources[: len(rows)], mode="clip")

    def _prepare_size(self, slot: Slot, size: int) -> None:
        from ck_mlperf.loadgen.engines.cuda import Graph

        assert self._plan is not None
        lane = self._lanes[slot.compute_stream.handle]
        if lane.context is None:
            lane.context = self._plan.create_context(lane.stream.handle)
        lane.context.set_address(self._recipe.input.name, lane.input or slot.input)
        lane.context.set_address(self._recipe.output.name, slot.output)
        if lane.size != size:
            self._set_size(lane, size)
            for _ in range(_WARM_UP_RUNS):  # without the kernel before it: no samples are loaded
                lane.context.execute(lane.stream.handle)
            lane.stream.synchronize()
        if self._captures_graphs:
            graph = Graph(lane.stream, lambda: self._execute(slot, size))
            self._graphs[id(slot), size] = graph
            self._prepared.callback(graph.free)

    def _start(self, slot: Slot, size: int) -> None:
        graph = self._graphs.get((id(slot), size))
        if graph is not None:
            graph.launch()
            return
        self._set_size(self._lanes[slot.compute_stream.handle], size)
        self._execute(slot, size)

    def _execute(self, slot: Slot, size: int) -> None:
        """Enqueue the kernel that prepares the network's input, and the network."""
        lane = self._lanes[slot.compute_stream.handle]
        assert lane.context is not None
        if self._kernel is not None:
            if size <= _READ_FROM_HOST_UP_TO:
                source = self._sources[id(slot)].address
                self._kernel.start(source, lane.input or slot.input, size, lane.stream)
            elif lane.input:
                self._kernel.start(self._copied[id(slot)], lane.input, size, lane.stream)
        lane.context.execute(lane.stream.handle)

    def _set_size(self, lane: _Lane, size: int) -> None:
        if lane.size != size:
            assert lane.context is not None
            shape = (size, *shape_sample(self._recipe, "LINEAR"))
            lane.context.set_shape(self._recipe.input.name, shape)
            lane.size = size

    def _forget(self) -> None:
        # The contexts must go before the plan.
        self._graphs.clear()
        self._lanes.clear()
        self._plan = None
