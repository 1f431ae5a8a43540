"""TensorRT, of every flavour: runs a plan that package:model-tensorrt-convert-from-onnx built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from imagenet_helper.errors import UserError
from imagenet_helper.model import ModelRecipe
from tensorrt_helper import gpu as gpu_kind
from tensorrt_helper.flavour import load_flavour
from tensorrt_helper.plan import Target, read_plan, read_sidecar

from .cuda_engine import CudaEngine, Slot

if TYPE_CHECKING:
    import tensorrt

    from .cuda import Graph

# The second run of TensorRT for RTX captures a graph, where the first has compiled.
_WARM_UP_RUNS = 3


class TensorRt(CudaEngine):
    """Each slot has an execution context, and a CUDA graph per batch size.

    TensorRT for RTX captures its graphs itself.
    """

    def __init__(self, model: Path, recipe: ModelRecipe | None = None, device: int = 0) -> None:
        """Raises UserError where the plan's sidecar is missing or damaged."""
        self._sidecar = read_sidecar(model)
        super().__init__(model, recipe or self._sidecar.recipe, device)
        self.name = self._sidecar.key.flavour.replace("_", "-")
        self._contexts: dict[int, tensorrt.IExecutionContext] = {}
        self._sizes_set: dict[int, int] = {}
        self._graphs: dict[tuple[int, int], Graph] = {}

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
            recipe.input.name: (True, recipe.input.dtype, self._sample_shape),
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
        batch = tensors[recipe.input.name].shape[0]
        self._fixed_batch = batch if batch > 0 else None
        output = tensors[recipe.output.name]
        return output.shape[1:], np.dtype(output.dtype)

    def _prepare_size(self, slot: Slot, size: int) -> None:
        from .cuda import Graph

        assert self._engine is not None
        flavour, stream = self._flavour, slot.compute_stream
        context = self._contexts.get(id(slot))
        if context is None:
            context = self._contexts[id(slot)] = flavour.create_context(self._engine)
        flavour.set_address(context, self._recipe.input.name, slot.input)
        flavour.set_address(context, self._recipe.output.name, slot.output)
        self._set_size(slot, size)
        for _ in range(_WARM_UP_RUNS):
            flavour.execute(context, stream.handle)
        stream.synchronize()
        if flavour.captures_graphs:
            graph = Graph(stream, lambda: flavour.execute(context, stream.handle))
            self._graphs[id(slot), size] = graph
            self._prepared.callback(graph.free)

    def _start(self, slot: Slot, size: int) -> None:
        graph = self._graphs.get((id(slot), size))
        if graph is not None:
            graph.launch()
            return
        self._set_size(slot, size)
        self._flavour.execute(self._contexts[id(slot)], slot.compute_stream.handle)

    def _set_size(self, slot: Slot, size: int) -> None:
        if self._sizes_set.get(id(slot)) != size:
            shape = (size, *self._sample_shape)
            self._flavour.set_shape(self._contexts[id(slot)], self._recipe.input.name, shape)
            self._sizes_set[id(slot)] = size

    def _forget(self) -> None:
        # Contexts before the engine that they belong to.
        self._graphs.clear()
        self._contexts.clear()
        self._sizes_set.clear()
        self._engine = None
