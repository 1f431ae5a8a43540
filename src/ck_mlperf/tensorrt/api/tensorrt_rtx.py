"""TensorRT for RTX: builds without a GPU, and compiles the kernels where the plan runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.machine.gpus import Gpu
from ck_mlperf.tensorrt.api.bindings import Bindings
from ck_mlperf.tensorrt.api.interface import FLAVOURS
from ck_mlperf.tensorrt.names import MODULE, RTX_CAPABILITIES, RTX_MODULE

if TYPE_CHECKING:
    import tensorrt

    from ck_mlperf.tensorrt.key import PlanKey

_TURING = "7.5"


class TensorRtForRtx(Bindings):
    """It times nothing when it builds, and captures CUDA graphs itself when it runs."""

    name = RTX_MODULE
    product = "TensorRT for RTX"
    newest = 1
    distributions = ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx-cu11")
    library = "libtensorrt_rtx"
    has_timing_cache = False
    captures_graphs = False
    builds_for_list = True

    @classmethod
    def takes(cls, release: tuple[int, int]) -> bool:
        return release >= (1, 0)

    def choose_gpu(
        self, capabilities: Sequence[str] | None, find: Callable[[], list[Gpu]]
    ) -> dict[str, Any]:
        if capabilities is not None:
            return {"compute_capabilities": _sort_capabilities(capabilities)}
        gpus = find()
        if not gpus:
            return {"compute_capabilities": self._list_defaults()}
        present = [gpu.compute_capability for gpu in gpus]
        known = [capability for capability in present if capability in RTX_CAPABILITIES]
        if not known:
            raise UserError(
                f"{self.title} does not run on {', '.join(map(str, gpus))}: it needs compute "
                f"capability {' or '.join(RTX_CAPABILITIES)}. Use TensorRT itself "
                f"({FLAVOURS[MODULE]}), or run the ONNX model with ONNX Runtime. To build for "
                "another machine, say for which GPUs: --compute-capabilities 8.6,8.9"
            )
        return {"compute_capabilities": _sort_capabilities(known)}

    def _list_defaults(self) -> list[str]:
        """What to build for if there is no GPU: all but Turing, which needs a plan of its own."""
        if self.release < (1, 7):
            return ["8.6", "8.9", "12.0"]
        return [capability for capability in RTX_CAPABILITIES if capability != _TURING]

    def set_target(self, config: tensorrt.IBuilderConfig, key: PlanKey) -> None:
        # Not in tensorrt-stubs: TensorRT itself has no such calls.
        target: Any = config
        known = getattr(self.trt, "ComputeCapability", None)
        capabilities = key.gpu["compute_capabilities"]
        target.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            member = getattr(known, "SM" + capability.replace(".", ""), None)
            if member is None:
                raise UserError(
                    f"{self.title} does not build for compute capability {capability}. "
                    "Name others with --compute-capabilities, or install a newer version"
                )
            target.set_compute_capability(member, index)

    def create_context(
        self, engine: tensorrt.ICudaEngine, stream: int
    ) -> tensorrt.IExecutionContext:
        config: Any = engine.create_runtime_config()
        strategy = getattr(self.trt, "CudaGraphStrategy", None)  # not in tensorrt-stubs
        if strategy is not None:
            config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE
        return self.check_context(engine.create_execution_context(config))


def _sort_capabilities(capabilities: Sequence[str]) -> list[str]:
    unknown = [text for text in capabilities if text not in RTX_CAPABILITIES]
    if unknown or not capabilities:
        raise UserError(
            f"compute capability {', '.join(map(repr, unknown)) or 'missing'}: "
            f"TensorRT for RTX builds for {', '.join(RTX_CAPABILITIES)}"
        )
    return [capability for capability in RTX_CAPABILITIES if capability in capabilities]
