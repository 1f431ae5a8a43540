"""The sample library: which images LoadGen has loaded, and in which rows of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, cast

import numpy as np

from ck_mlperf.loadgen.engines.base import Engine
from ck_mlperf.loadgen.harness.interface import Indices

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SampleLibrary:
    """Loads sets of samples into an engine and knows the row of each.

    images: uint8 [n, side, side, 3], by sample index; may be a memory map.
    """

    def __init__(self, images: NDArray[np.uint8], engine: Engine) -> None:
        self._images = images
        self._engine = engine
        self.row_by_index: list[int] = []
        """The engine's row of each sample up to the last one loaded; -1 for those not loaded."""

    def load(self, indices: Sequence[int]) -> None:
        """Load the samples `indices`, repeated ones once.

        In LoadGen's order: Offline and MultiStream then ask for neighbouring rows, which an engine
        need not gather. In MultiStream LoadGen repeats a set's first samples at its end.
        """
        loaded = list(dict.fromkeys(indices))
        first, count = loaded[0], len(loaded)
        is_run = loaded == list(range(first, first + count))
        # A slice of a memory map costs no memory; picking copies.
        self._engine.load(self._images[first : first + count] if is_run else self._images[loaded])
        self.row_by_index = [-1] * (max(loaded) + 1)
        for row, index in enumerate(loaded):
            self.row_by_index[index] = row
        self._row_array = np.array(self.row_by_index, np.int64)

    def unload(self, indices: Sequence[int]) -> None:
        """Let go of everything: LoadGen has one set loaded at a time."""
        self._engine.unload()

    def find_rows(self, indices: Indices) -> Sequence[int]:
        """The engine's rows of loaded samples; of an array of indices, an array, int64 [n]."""
        if isinstance(indices, np.ndarray):
            return cast("Sequence[int]", self._row_array.take(indices))
        if len(indices) == 1:
            return [self.row_by_index[indices[0]]]
        # Python's fastest way to look up several; for one it would return a bare number.
        rows: tuple[int, ...] = itemgetter(*indices)(self.row_by_index)
        return rows
