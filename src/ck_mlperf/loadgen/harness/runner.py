"""One engine at work: its samples, its batches in flight, and how its answers reach LoadGen."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ck_mlperf.loadgen.engines.base import Engine, EngineError
from ck_mlperf.loadgen.harness.interface import Ids, Indices, MakeResponses
from ck_mlperf.loadgen.harness.samples import SampleLibrary

if TYPE_CHECKING:
    from numpy.typing import NDArray


INT32 = np.dtype(np.int32)
"""The type of labels. There is one object of it, so `is` tells, which costs least."""


class Tally:
    """What an engine has answered with one set of samples loaded."""

    def __init__(self) -> None:
        self.singles = 0
        """Queries of one sample that took the short path: a batch each."""
        self.batches = 0
        """Other batches."""
        self.samples = 0
        """Samples in these."""


class Runner:
    """An engine with the buffer for its answers. Used by one thread at a time."""

    def __init__(
        self,
        engine: Engine,
        images: NDArray[np.uint8],
        batch_size: int,
        top5: NDArray[np.int32] | None,
        make_responses: MakeResponses,
    ) -> None:
        """images: uint8 [n, side, side, 3], by sample index. top5: int32 [dataset size, 5], filled
        in by sample index, or None."""
        self.engine = engine
        self.samples = SampleLibrary(images, engine)
        self.top5 = top5
        self.in_flight: deque[tuple[Ids, Indices]] = deque()
        self.results = np.zeros(batch_size, np.int32)
        self.tallies = [Tally()]
        """One for each set of samples that was loaded, in order."""
        self.responses = make_responses(self.results)

    def load(self, indices: Sequence[int]) -> None:
        """Load a set of samples and start a new tally."""
        self.samples.load(indices)
        if self.tallies[-1].singles or self.tallies[-1].batches:
            self.tallies.append(Tally())
        if self.top5 is not None and (self.top5[:, 0] >= 0).all():
            self.top5 = None  # accuracy is done; the performance part of a SubmissionRun

    def start(self, ids: Ids, indices: Indices) -> None:
        """Hand a batch to the engine. It counts as in flight even where this raises."""
        self.in_flight.append((ids, indices))
        self.engine.enqueue(self.samples.find_rows(indices))

    def complete_oldest(self) -> None:
        """Wait for the oldest batch in flight and report it. Where this raises, it stays."""
        labels = self.engine.collect()
        ids, indices = self.in_flight[0]
        count = len(ids)
        if labels.dtype is not INT32 or labels.shape != (count,):
            labels = self.pick_best(labels, indices)
        self.results[:count] = labels
        self.in_flight.popleft()
        tally = self.tallies[-1]
        tally.batches += 1
        tally.samples += count
        self.responses.complete(ids)

    def pick_best(self, labels: NDArray[np.int32], indices: Indices) -> NDArray[np.int32]:
        """The best labels [n] of [n, 5], which go into `top5` where there is one, or of [n].

        Raises EngineError where `labels` are neither, or not int32: LoadGen gets that type, and
        numpy would round, wrap or make numbers up to fit it.
        """
        count = len(indices)
        if labels.dtype != INT32 or labels.shape not in ((count,), (count, 5)):
            raise EngineError(
                f"{self.engine.name} gave answers of type {labels.dtype} and shape {labels.shape} "
                f"to a batch of {count}, want int32 and ({count},) or ({count}, 5): a defect of "
                "the engine"
            )
        if labels.ndim == 1:
            return labels
        if self.top5 is not None:
            self.top5[indices] = labels
        return labels[:, 0]

    def abandon(self) -> list[int]:
        """Forget what is in flight; its ids."""
        ids = [id_ for batch, _ in self.in_flight for id_ in batch]
        self.in_flight.clear()
        return ids
