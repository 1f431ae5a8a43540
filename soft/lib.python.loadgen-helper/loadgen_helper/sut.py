"""The system under test: LoadGen's queries, cut into batches for an engine, and its answers.

LoadGen wants for each sample a response with the sample's id and where its result lies; it copies
the result before `QuerySamplesComplete` returns. One pool of responses that point into one result
buffer therefore serves all batches, and nothing is made per sample: only the ids are set.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from mlperf_loadgen import QuerySampleResponse, QuerySamplesComplete

from .engines.base import Engine, EngineError
from .samples import SampleLibrary

if TYPE_CHECKING:
    from numpy.typing import NDArray

_set_id = QuerySampleResponse.id.fset
_set_id = getattr(_set_id, "__func__", _set_id)  # without pybind's wrapper: 6% faster
_LABEL_BYTES = 4


class SystemUnderTest:
    """Answers each query before `issue` returns: SingleStream, MultiStream, Offline.

    LoadGen cannot be stopped from a callback, and an exception that passes through it leaves
    threads behind that end the process by abort. So no exception leaves a callback: the first one
    is kept in `error`, and from then on every query is answered at once with label 0, which lets
    LoadGen run out fast. Whoever started the test raises `error` afterwards and drops the logs.

    top5: int32 [dataset size, 5], filled in by sample index until no -1 is left, or None.
    """

    def __init__(
        self,
        engine: Engine,
        samples: SampleLibrary,
        batch_size: int,
        top5: NDArray[np.int32] | None = None,
    ) -> None:
        self.error: BaseException | None = None
        self._engine = engine
        self._samples = samples
        self._batch_size = batch_size
        self._top5 = top5
        self._in_flight: deque[tuple[list[int], list[int]]] = deque()
        self._results = np.zeros(batch_size, np.int32)
        address = self._results.ctypes.data
        self._pool = [
            QuerySampleResponse(0, address + _LABEL_BYTES * slot, _LABEL_BYTES)
            for slot in range(batch_size)
        ]
        self._first = self._pool[:1]

    def load(self, indices: Sequence[int]) -> None:
        """LoadGen's callback: load a set of samples."""
        try:
            if self.error is None:
                self._samples.load(indices)
            if self._top5 is not None and (self._top5[:, 0] >= 0).all():
                self._top5 = None  # accuracy is done; the performance part of a SubmissionRun
        except BaseException as error:
            self.fail(error)

    def unload(self, indices: Sequence[int]) -> None:
        """LoadGen's callback: let go of a set of samples."""
        try:
            self._samples.unload(indices)
        except BaseException as error:
            self.fail(error)

    def issue(self, ids: list[int], indices: list[int]) -> None:
        """LoadGen's callback: answer the samples `indices`, each under its response id."""
        if len(ids) != 1:
            self._answer(ids, indices)
            self._answer_in_flight()
            return
        # SingleStream: each step is part of the latency, so this is `_answer` without its loop.
        try:
            if self.error is None:
                self._engine.enqueue(self._samples.find_rows(indices))
                labels = self._engine.collect()
                if labels.shape != (1,):
                    labels = self._pick_best(labels, indices)
                self._results[0] = labels[0]
        except BaseException as error:
            self.fail(error)
        _set_id(self._pool[0], ids[0])
        QuerySamplesComplete(self._first)

    def flush(self) -> None:
        """LoadGen's callback: no more queries for now."""

    def fail(self, error: BaseException) -> None:
        """Remember the first error; from any thread."""
        if self.error is None:
            self.error = error

    def close(self) -> None:
        """End what the system started; after the test."""

    def _answer(self, ids: list[int], indices: list[int]) -> None:
        """Hand the samples to the engine batch by batch; the last batches stay in flight.

        May empty the lists, which LoadGen makes anew for each call: an Offline query's hold tens of
        millions of numbers of 40 bytes. With the first eighth given back early, the latencies that
        LoadGen notes meanwhile (8 bytes each) need no memory on top.
        """
        begin, size, give_back_at = 0, self._batch_size, len(ids) / 8
        try:
            while begin < len(ids) and self.error is None:
                end = begin + size
                batch = indices[begin:end]
                self._engine.enqueue(self._samples.find_rows(batch))
                self._in_flight.append((ids[begin:end], batch))
                begin = end
                if begin > give_back_at:
                    del ids[:begin], indices[:begin]
                    begin, give_back_at = 0, math.inf
                if len(self._in_flight) == self._engine.depth:
                    self._complete_oldest()
        except BaseException as error:
            self.fail(error)
        if self.error is not None:
            self._give_up(ids[begin:])

    def _answer_in_flight(self) -> None:
        try:
            while self._in_flight:
                self._complete_oldest()
        except BaseException as error:
            self.fail(error)
            self._give_up([])

    def _complete_oldest(self) -> None:
        labels = self._engine.collect()
        ids, indices = self._in_flight[0]
        if labels.shape != (len(ids),):
            labels = self._pick_best(labels, indices)
        self._results[: len(ids)] = labels
        self._in_flight.popleft()
        self._complete(ids)

    def _pick_best(self, labels: NDArray[np.int32], indices: list[int]) -> NDArray[np.int32]:
        """The best labels [n] of [n, 5], which are kept where they are asked for."""
        if labels.shape != (len(indices), 5):
            raise EngineError(
                f"{self._engine.name} gave answers of shape {labels.shape} to a batch of "
                f"{len(indices)}: a defect of the engine"
            )
        if self._top5 is not None:
            self._top5[indices] = labels
        return labels[:, 0]

    def _complete(self, ids: list[int]) -> None:
        """Report the samples `ids`, at most a batch, with what the result buffer holds."""
        deque(map(_set_id, self._pool, ids), maxlen=0)  # the fastest loop that Python has
        count = len(ids)
        QuerySamplesComplete(self._pool if count == self._batch_size else self._pool[:count])

    def _give_up(self, ids: list[int]) -> None:
        """Answer whatever is open, without the engine."""
        for batch_ids, _ in self._in_flight:
            self._complete(batch_ids)
        self._in_flight.clear()
        for begin in range(0, len(ids), self._batch_size):
            self._complete(ids[begin : begin + self._batch_size])


class ServerSystem(SystemUnderTest):
    """Queues the queries; a thread of its own forms batches of what has arrived: Server.

    After an error it answers nothing until the flush. LoadGen, which would otherwise send for as
    long as it had planned, then ends when too many queries are open (server_max_async_queries).
    """

    def __init__(
        self,
        engine: Engine,
        samples: SampleLibrary,
        batch_size: int,
        top5: NDArray[np.int32] | None = None,
    ) -> None:
        super().__init__(engine, samples, batch_size, top5)
        self._ids: list[int] = []
        self._indices: list[int] = []
        self._is_busy = False
        self._is_closing = False
        self._changed = threading.Condition()
        # It completes samples, so LoadGen keeps its log: it must live until StartTest returns.
        self._worker = threading.Thread(target=self._work, name="server-batches", daemon=True)
        self._worker.start()

    def issue(self, ids: list[int], indices: list[int]) -> None:
        with self._changed:
            self._ids += ids
            self._indices += indices
            self._changed.notify_all()

    def flush(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_busy and (self.error or not self._ids))
            if self.error is not None:
                ids, self._ids, self._indices = self._ids, [], []
                super()._give_up(ids)

    def fail(self, error: BaseException) -> None:
        with self._changed:
            super().fail(error)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._worker.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._is_busy = bool(self._in_flight)
                self._changed.notify_all()
                self._changed.wait_for(self._has_work)
                if self._is_closing:
                    return
                ids, indices, self._ids, self._indices = self._ids, self._indices, [], []
                self._is_busy = True
            if ids:
                self._answer(ids, indices)
                continue
            self._answer_in_flight()

    def _has_work(self) -> bool:
        if self._is_closing or self._in_flight:
            return True
        return bool(self._ids) and self.error is None

    def _give_up(self, ids: list[int]) -> None:
        """Keep whatever is open for the flush."""
        with self._changed:
            for batch_ids, _ in self._in_flight:
                self._ids += batch_ids
            self._in_flight.clear()
            self._ids += ids
