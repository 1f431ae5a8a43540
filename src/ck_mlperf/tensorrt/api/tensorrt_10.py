"""TensorRT 10 and 11, and newer ones until they have a file of their own."""

from __future__ import annotations

from ck_mlperf.tensorrt.api.bindings import Bindings


class TensorRt10(Bindings):
    """Networks are strongly typed. 11 has no other, and no flag for it."""

    newest = 11

    def __init__(self, version: str, release: tuple[int, int]) -> None:
        super().__init__(version, release)
        self.has_tiling = release >= (10, 8)
        self.least_capability = (7, 0) if release < (10, 5) else (7, 5)

    @classmethod
    def takes(cls, release: tuple[int, int]) -> bool:
        return release >= (10, 0)

    def network_flags(self) -> int:
        if self.release >= (11, 0):
            return 0
        return 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
