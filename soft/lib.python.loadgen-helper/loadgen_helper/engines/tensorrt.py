"""TensorRT, of every flavour: runs a plan that package:model-tensorrt-convert-from-onnx built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from imagenet_helper.errors import UserError
from imagenet_helper.model import ModelRecipe
from tensorrt_helper import gpu as gpu_kind
from tensorrt_helper.flavour import load_flavour
from tensorrt_helper.plan import Target, read_plan, read_sidecar

from .cuda_engine import CudaEngine, Slot
from .prepare import Gathering, Preparing, can_gather, can_prepare, pack, shape_sample

if TYPE_CHECKING:
    import tensorrt
    from numpy.typing import NDArray

    from .cuda import Graph, PinnedArray

# The second run of TensorRT for RTX captures a graph, where the first has compiled.
_WARM_UP_RUNS = 3


class TensorRt(CudaEngine):
    """Each slot has an execution context on a stream of its own, and a CUDA graph per batch size.

    Networks of two slots run at a time, which fills the gaps between their layers, while the
    samples of the third are brought. The graph begins with a kernel that brings them from pinned
    memory: it reads which ones from a list there, so that a batch costs the host one launch. Where
    the plan's samples are images it makes the network's input of them on the way. TensorRT for RTX
    captures its graphs itself.
    """

    depth = 3
    at_once = 2

    def __init__(self, model: Path, recipe: ModelRecipe | None = None, device: int = 0) -> None:
        """Raises UserError where the plan's sidecar is missing or damaged."""
        self._sidecar = read_sidecar(model)
        super().__init__(model, recipe or self._sidecar.recipe, device)
        self.name = self._sidecar.key.flavour.replace("_", "-")
        self._kernel: Preparing | Gathering | None = None
        self._contexts: dict[int, tensorrt.IExecutionContext] = {}
        self._sources: dict[int, PinnedArray] = {}
        self._addresses: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._sizes_set: dict[int, int] = {}
        self._graphs: dict[tuple[int, int], Graph] = {}

    def _make_streams(self) -> list[tuple[Any, Any]]:
        cuda = self._gpu.cuda
        copies = cuda.Stream()
        return [(copies, cuda.Stream()) for _ in range(self.depth)]

    def _open_model(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        self._flavour = flavour = load_flavour(self._sidecar.key.flavour)
        kind = gpu_kind.Gpu(self._gpu.name, self._gpu.compute_capability)
        plan = read_plan(self._path, Target.of(flavour, kind))
        self._engine: tensorrt.ICudaEngine | None = flavour.deserialise(plan)
        self._opened.callback(self._forget)
        self.version = flavour.version
        tensors = {tensor.name: tensor for tensor in flavour.list_tensors(self._engine)}
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
            ):
                raise UserError(
                    f"{self._path}: {name} of its recipe is not what the plan has: "
                    f"{', '.join(map(str, tensors.values()))}. Build it again"
                )
        self._layout = flavour.read_format(self._engine, recipe.input.name)
        self._choose_kernel()
        batch = tensors[recipe.input.name].shape[0]
        self._fixed_batch = batch if batch > 0 else None
        output = tensors[recipe.output.name]
        return output.shape[1:], np.dtype(output.dtype)

    def _choose_kernel(self) -> None:
        """What samples are in pinned memory, and what brings them from there."""
        recipe = self._recipe
        self._sample_shape = shape_sample(recipe, self._layout)
        sample_bytes = int(np.prod(self._sample_shape)) * self._sample_dtype.itemsize
        self._input_sample_bytes = sample_bytes
        if self._sidecar.key.input == "uint8" and can_prepare(recipe, self._layout):
            self._kernel = Preparing(self._gpu, recipe, self._layout)
            self._sample_shape = (recipe.image.side, recipe.image.side, 3)
            self._sample_dtype = np.dtype(np.uint8)
        elif can_gather(sample_bytes):
            self._kernel = Gathering(self._gpu, sample_bytes)
        else:
            return
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
            sources.array[:] = self._addresses[0]  # what fills up a batch must be loaded

    def _allocate(self, slot: Slot, largest: int) -> None:
        from .cuda import PinnedArray

        super()._allocate(slot, largest)
        sources = PinnedArray(self._gpu.cuda, (largest,), np.dtype(np.uint64))
        self._prepared.callback(sources.free)
        self._sources[id(slot)] = sources

    def _bring(self, slot: Slot, rows: Sequence[int], is_alone: bool) -> None:
        """Say where the samples are; the kernel of the slot's graph brings them."""
        if self._kernel is None:
            super()._bring(slot, rows, is_alone)
            return
        sources = self._sources[id(slot)].array
        if len(rows) == 1:
            sources[0] = self._addresses[rows[0]]
        else:
            np.take(self._addresses, rows, out=sources[: len(rows)], mode="clip")

    def _prepare_size(self, slot: Slot, size: int) -> None:
        from .cuda import Graph

        assert self._engine is not None
        flavour, stream = self._flavour, slot.compute_stream
        context = self._contexts.get(id(slot))
        if context is None:
            context = self._contexts[id(slot)] = flavour.create_context(self._engine, stream.handle)
        flavour.set_address(context, self._recipe.input.name, slot.input)
        flavour.set_address(context, self._recipe.output.name, slot.output)
        self._set_size(slot, size)
        for _ in range(_WARM_UP_RUNS):  # of the network by itself: no samples are loaded yet
            flavour.execute(context, stream.handle)
        stream.synchronize()
        if flavour.captures_graphs:
            graph = Graph(stream, lambda: self._execute(slot, size))
            self._graphs[id(slot), size] = graph
            self._prepared.callback(graph.free)

    def _start(self, slot: Slot, size: int) -> None:
        graph = self._graphs.get((id(slot), size))
        if graph is not None:
            graph.launch()
            return
        self._set_size(slot, size)
        self._execute(slot, size)

    def _execute(self, slot: Slot, size: int) -> None:
        """Enqueue what brings the samples, and the network."""
        stream = slot.compute_stream
        if self._kernel is not None:
            self._kernel.start(self._sources[id(slot)].address, slot.input, size, stream)
        self._flavour.execute(self._contexts[id(slot)], stream.handle)

    def _set_size(self, slot: Slot, size: int) -> None:
        if self._sizes_set.get(id(slot)) != size:
            shape = (size, *shape_sample(self._recipe, "LINEAR"))
            self._flavour.set_shape(self._contexts[id(slot)], self._recipe.input.name, shape)
            self._sizes_set[id(slot)] = size

    def _forget(self) -> None:
        # Contexts before the engine that they belong to.
        self._graphs.clear()
        self._contexts.clear()
        self._sizes_set.clear()
        self._engine = None
