"""An engine that answers 0 at once, so that a run costs what the harness costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ck_mlperf.loadgen.engines.base import Engine

if TYPE_CHECKING:
    from ck_mlperf.models.recipe import ModelRecipe


class NullEngine(Engine):
    """Classifies nothing; for measurements of the harness only."""

    name = "null"
    version = "1"
    device = "none"

    def __init__(
        self, model: Path | None = None, recipe: ModelRecipe | None = None, device: int = 0
    ) -> None:
        self._answer = np.zeros(0, np.int32)

    def open(self) -> None:
        pass

    def load(self, images: NDArray[np.uint8]) -> None:
        pass

    def unload(self) -> None:
        pass

    def enqueue(self, rows: Sequence[int]) -> None:
        if len(rows) != len(self._answer):
            self._answer = np.zeros(len(rows), np.int32)

    def collect(self) -> NDArray[np.int32]:
        return self._answer

    def close(self) -> None:
        pass
