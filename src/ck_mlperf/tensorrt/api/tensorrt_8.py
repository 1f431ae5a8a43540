"""TensorRT 8.6: weakly typed, and the last that runs on Maxwell and Pascal (a GTX 1080)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ck_mlperf.tensorrt.api.bindings import Bindings

if TYPE_CHECKING:
    import tensorrt


class TensorRt8(Bindings):
    """The types of a network are hints; the builder chooses among those that its flags allow."""

    newest = 8
    distributions = ("tensorrt",)
    least_capability = (5, 0)
    is_strongly_typed = False
    reports_progress = False
    # The contexts share one profile: without this, only the first could run.
    previews = ("PROFILE_SHARING_0806",)

    @classmethod
    def takes(cls, release: tuple[int, int]) -> bool:
        return (8, 6) <= release < (9, 0)

    def list_flags(self, precision: str) -> tuple[str, ...]:
        flags = super().list_flags(precision)
        if precision == "fp16":
            return ("FP16", "PREFER_PRECISION_CONSTRAINTS", *flags)
        if precision == "int8":  # layers that are not quantised run in float16
            return ("INT8", "FP16", "PREFER_PRECISION_CONSTRAINTS", *flags)
        return flags

    def network_flags(self) -> int:
        return 1 << int(self.trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)

    def create_context(
        self, engine: tensorrt.ICudaEngine, stream: int
    ) -> tensorrt.IExecutionContext:
        context = super().create_context(engine, stream)
        # Only the first context gets a profile by itself. All use the only one.
        if not context.set_optimization_profile_async(0, stream):
            raise self.describe_failure("cannot use the plan's profile")
        return context
