"""How a system under test is connected with LoadGen: by its Python module, or by its C++ interface.

Both run the same LoadGen on the same settings; what a query costs on its way differs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ck_mlperf.loadgen.harness.sut import SystemUnderTest

Ids = list[int] | NDArray[np.uint64]
"""Response ids of samples. An array is in LoadGen's memory: see `SystemUnderTest.issue`."""
Indices = list[int] | NDArray[np.int64]
"""Indices of samples: a list or an array, as their ids are."""


class Responses(Protocol):
    """Reports the labels of a batch to LoadGen, from one buffer for labels. For one thread."""

    @property
    def complete(self) -> Callable[[Ids], None]:
        """Reports as many of the buffer's labels, from its beginning, as there are ids."""

    @property
    def complete_one(self) -> Callable[[int, int], None]:
        """Reports one label: (id, label)."""


MakeResponses = Callable[[NDArray[np.int32]], Responses]
"""`Interface.make_responses`."""


class Interface(Protocol):
    """A way to LoadGen."""

    name: str
    """As in the record."""
    bytes_per_sample: int
    """Memory for a sample that LoadGen has generated ahead, rounded up from measurements: its
    metadata, ids and indices, latency."""
    most_samples_per_s: float
    """The most that LoadGen and the system under test, in one process, can deal out."""

    def make_responses(self, results: NDArray[np.int32]) -> Responses:
        """For the labels in `results` (int32 [most samples of a batch])."""

    def start(
        self, system: SystemUnderTest, total: int, loadable: int, test: Any, log_dir: Path
    ) -> None:
        """Run a test to its end, with callbacks to `system` from this thread.

        total, loadable: samples, and how many of them may be loaded at a time.
        test: LoadGen's TestSettings, of its Python module. log_dir: an existing folder; an
        audit.config in it, and no other, has LoadGen run a compliance test.
        """
