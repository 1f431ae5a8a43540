"""The system under test: LoadGen's queries, cut into batches for engines, and their answers.

LoadGen wants for each sample a response with the sample's id and where its result lies; it copies
the result before `QuerySamplesComplete` returns. One pool of responses that point into one result
buffer therefore serves all batches of an engine, and nothing is made per sample: only the ids are
set.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from mlperf_loadgen import QuerySampleResponse, QuerySamplesComplete

from .batching import BatchPolicy
from .engines.base import Engine, EngineError
from .parallel import map_parallel
from .samples import SampleLibrary

if TYPE_CHECKING:
    from numpy.typing import NDArray

_set_id = QuerySampleResponse.id.fset
_set_id = getattr(_set_id, "__func__", _set_id)  # without pybind's wrapper: 6% faster
_LABEL_BYTES = 4


class Tally:
    """What an engine has answered with one set of samples loaded."""

    def __init__(self) -> None:
        self.singles = 0
        """Queries of one sample that took the short path: a batch each."""
        self.batches = 0
        """Others."""
        self.samples = 0
        """In these."""


class Runner:
    """One engine at work: its samples, the batches in flight and the buffer for its answers.

    Used by one thread at a time.

    top5: int32 [dataset size, 5], filled in by sample index, or None.
    """

    def __init__(
        self,
        engine: Engine,
        images: NDArray[np.uint8],
        batch_size: int,
        top5: NDArray[np.int32] | None,
    ) -> None:
        self.engine = engine
        self.samples = SampleLibrary(images, engine)
        self.top5 = top5
        self.in_flight: deque[tuple[list[int], list[int]]] = deque()
        self.results = np.zeros(batch_size, np.int32)
        self.tallies = [Tally()]
        """One for each set of samples that was loaded, the last one's last."""
        self._batch_size = batch_size
        self.pool = make_pool(self.results)

    def load(self, indices: Sequence[int]) -> None:
        """Load a set of samples and count from 0 again."""
        self.samples.load(indices)
        if self.tallies[-1].singles or self.tallies[-1].batches:
            self.tallies.append(Tally())

    def start(self, ids: list[int], indices: list[int]) -> None:
        """Hand a batch to the engine. It counts as in flight also where this raises."""
        self.in_flight.append((ids, indices))
        self.engine.enqueue(self.samples.find_rows(indices))

    def complete_oldest(self) -> None:
        """Wait for the oldest batch in flight and report it; where this raises, it stays."""
        labels = self.engine.collect()
        ids, indices = self.in_flight[0]
        count = len(ids)
        if labels.shape != (count,):
            labels = self.pick_best(labels, indices)
        self.results[:count] = labels
        self.in_flight.popleft()
        tally = self.tallies[-1]
        tally.batches += 1
        tally.samples += count
        deque(map(_set_id, self.pool, ids), maxlen=0)  # the fastest loop that Python has
        QuerySamplesComplete(self.pool if count == self._batch_size else self.pool[:count])

    def pick_best(self, labels: NDArray[np.int32], indices: list[int]) -> NDArray[np.int32]:
        """The best labels [n] of [n, 5], which are kept where they are asked for."""
        if labels.shape != (len(indices), 5):
            raise EngineError(
                f"{self.engine.name} gave answers of shape {labels.shape} to a batch of "
                f"{len(indices)}: a defect of the engine"
            )
        if self.top5 is not None:
            self.top5[indices] = labels
        return labels[:, 0]

    def abandon(self) -> list[int]:
        """Forget what is in flight; its ids."""
        ids = [id_ for batch, _ in self.in_flight for id_ in batch]
        self.in_flight.clear()
        return ids


class SystemUnderTest:
    """Answers each query before `issue` returns, with one engine: SingleStream, MultiStream,
    Offline.

    LoadGen cannot be stopped from a callback, and an exception that passes through it leaves
    threads behind that end the process by abort. So no exception leaves a callback: the first one
    is kept in `error`, and from then on every query is answered at once with label 0, which lets
    LoadGen run out fast. Whoever started the test raises `error` afterwards and drops the logs.

    top5: int32 [dataset size, 5], filled in by sample index until no -1 is left, or None.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        images: NDArray[np.uint8],
        batch_size: int,
        top5: NDArray[np.int32] | None = None,
        sizes: Sequence[int] = (),
    ) -> None:
        """sizes: of the batches that will come, where an engine should be prepared for them."""
        self.error: BaseException | None = None
        self.top5 = top5
        self._sizes = sizes or [batch_size]
        self._is_ready = False
        self.runners = [Runner(engine, images, batch_size, top5) for engine in engines]
        self._batch_size = batch_size
        # What SingleStream needs, without a step on the way. Not the bound methods: Python calls a
        # method of an object faster than one that was kept.
        self._runner = runner = self.runners[0]
        self._tally = runner.tallies[-1]
        self._engine = runner.engine
        self._row_by_index = runner.samples.row_by_index
        self._results = runner.results
        self._first = runner.pool[:1]
        self._response = runner.pool[0]

    def load(self, indices: Sequence[int]) -> None:
        """LoadGen's callback: load a set of samples."""
        try:
            if self.error is None and not self._is_ready:
                self._make_ready()
                self._is_ready = True
            if self.error is None:
                map_parallel(lambda runner: runner.load(indices), self.runners)
            self._tally = self._runner.tallies[-1]
            self._row_by_index = self._runner.samples.row_by_index
            for runner in self.runners:
                if runner.top5 is not None and (runner.top5[:, 0] >= 0).all():
                    runner.top5 = None  # accuracy is done; the performance part of a SubmissionRun
        except BaseException as error:
            self.fail(error)

    def unload(self, indices: Sequence[int]) -> None:
        """LoadGen's callback: let go of a set of samples."""
        try:
            for runner in self.runners:
                runner.samples.unload(indices)
        except BaseException as error:
            self.fail(error)

    def issue(self, ids: list[int], indices: list[int]) -> None:
        """LoadGen's callback: answer the samples `indices`, each under its response id."""
        if len(ids) != 1:
            self._answer(ids, indices)
            return
        # SingleStream: each step is part of the latency, so this is `_answer` without its loop.
        try:
            if self.error is None:
                self._engine.enqueue([self._row_by_index[indices[0]]])
                labels = self._engine.collect()
                if labels.shape != (1,):
                    labels = self._runner.pick_best(labels, indices)
                self._results[0] = labels[0]
                self._tally.singles += 1
        except BaseException as error:
            self.fail(error)
        _set_id(self._response, ids[0])
        QuerySamplesComplete(self._first)

    def flush(self) -> None:
        """LoadGen's callback: no more queries for now."""

    def fail(self, error: BaseException) -> None:
        """Remember the first error; from any thread."""
        if self.error is None:
            self.error = error

    def close(self) -> None:
        """End what the system started; after the test."""

    def _make_ready(self) -> None:
        """Prepare the engine in the thread that will use it: LoadGen's, which loads and issues."""
        self._engine.prepare(self._sizes)

    def _answer(self, ids: list[int], indices: list[int]) -> None:
        """Hand the samples to the engine batch by batch, as many at a time as it takes.

        May empty the lists, which LoadGen makes anew for each call: an Offline query's hold tens of
        millions of numbers of 40 bytes. With the first eighth given back early, the latencies that
        LoadGen notes meanwhile (8 bytes each) need no memory on top.
        """
        runner, begin, size, give_back_at = self._runner, 0, self._batch_size, len(ids) / 8
        engine, in_flight = self._engine, runner.in_flight
        try:
            while begin < len(ids) and self.error is None:
                end = begin + size
                batch = indices[begin:end]
                in_flight.append((ids[begin:end], batch))
                begin = end
                engine.enqueue(runner.samples.find_rows(batch))
                if begin > give_back_at:
                    del ids[:begin], indices[:begin]
                    begin, give_back_at = 0, math.inf
                if len(in_flight) == engine.depth:
                    runner.complete_oldest()
            while in_flight and self.error is None:
                runner.complete_oldest()
        except BaseException as error:
            self.fail(error)
        if self.error is not None:
            answer_nothing(runner.abandon() + ids[begin:])


class QueuedSystem(SystemUnderTest):
    """Queues the samples; a thread for each engine forms batches of what waits, as its policy says,
    and answers them: Server, and any scenario with several engines.

    After an error each thread lets go of what it has. Where `answers_after_error`, whatever is open
    or comes is answered at once, as with one engine. Where not (Server), it is kept until the
    flush: LoadGen, which would otherwise send for as long as it had planned, then ends when too
    many queries are open (server_max_async_queries).
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        images: NDArray[np.uint8],
        batch_size: int,
        top5: NDArray[np.int32] | None,
        policies: Sequence[BatchPolicy],
        answers_after_error: bool,
        sizes: Sequence[int] = (),
    ) -> None:
        super().__init__(engines, images, batch_size, top5, sizes)
        self._policies = policies
        self._answers_after_error = answers_after_error
        self._queue = _Queue()
        self._preparing = len(self.runners)  # workers that are not ready yet
        self._asleep = 0  # workers with nothing to do
        self._is_closing = False
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)  # for who sleeps
        self._filled = threading.Condition(self._lock)  # for who holds a batch back
        self._drained = threading.Condition(self._lock)  # for the flush
        self._prepared = threading.Condition(self._lock)  # for the first load
        # They complete samples, so LoadGen keeps their logs: they must live until StartTest
        # returns.
        self._workers = [
            threading.Thread(target=self._work, args=pair, name=f"batches-{number}", daemon=True)
            for number, pair in enumerate(zip(self.runners, policies, strict=True))
        ]
        for worker in self._workers:
            worker.start()

    def issue(self, ids: list[int], indices: list[int]) -> None:
        with self._lock:
            for policy in self._policies:
                policy.arrived(len(ids))
            self._queue.add(ids, indices, time.monotonic())
            if self.error is not None and self._answers_after_error:
                answer_nothing(self._queue.take_all())
                return
            if self._asleep:
                self._arrived.notify()  # who takes of it wakes the next where more is left
            if self._queue.count >= self._batch_size:
                self._filled.notify()

    def flush(self) -> None:
        with self._lock:
            self._drained.wait_for(self._is_drained)
            if self.error is not None:
                answer_nothing(self._queue.take_all())

    def fail(self, error: BaseException) -> None:
        with self._lock:
            super().fail(error)
            self._wake_all()

    def close(self) -> None:
        with self._lock:
            self._is_closing = True
            self._wake_all()
        for worker in self._workers:
            worker.join()

    def _make_ready(self) -> None:
        """Wait for the workers: each prepares its engine itself."""
        with self._lock:
            self._prepared.wait_for(lambda: not self._preparing)

    def _prepare(self, engine: Engine) -> None:
        try:
            engine.prepare(self._sizes)
        except BaseException as error:
            self.fail(error)
        with self._lock:
            self._preparing -= 1
            self._prepared.notify_all()

    def _work(self, runner: Runner, policy: BatchPolicy) -> None:
        self._prepare(runner.engine)
        while True:
            try:
                with self._lock:
                    batch = self._wait_for_work(runner, policy)
                if batch is None:
                    return
                ids, indices = batch
                if ids:
                    runner.start(ids, indices)
                    policy.started(time.monotonic(), len(ids))
                else:
                    runner.complete_oldest()
                    policy.finished(time.monotonic())
            except BaseException as error:
                self.fail(error)

    def _wait_for_work(
        self, runner: Runner, policy: BatchPolicy
    ) -> tuple[list[int], list[int]] | None:
        """Ids and indices of the batch to start; empty: complete the oldest; None: the end."""
        while not self._is_closing:
            if self.error is not None:
                self._let_go(runner)
            elif len(runner.in_flight) < runner.engine.depth:
                now, queue = time.monotonic(), self._queue
                count, wait_s = policy.decide(now, queue.count, queue.oldest)
                if count:
                    batch = queue.take(count)
                    if queue.count and self._asleep:
                        self._arrived.notify()
                    return batch
                if wait_s > 0:
                    self._filled.wait(wait_s)
                    continue
            if runner.in_flight:
                return [], []
            self._asleep += 1
            if self._is_drained():
                self._drained.notify_all()
            self._arrived.wait()
            self._asleep -= 1
        return None

    def _let_go(self, runner: Runner) -> None:
        """After an error: answer what is open, or keep it for the flush."""
        ids = runner.abandon()
        if self._answers_after_error:
            answer_nothing(ids + self._queue.take_all())
        else:
            self._queue.add(ids, [0] * len(ids), time.monotonic())

    def _is_drained(self) -> bool:
        is_done = not self._queue.count or self.error is not None
        return is_done and self._asleep == len(self._workers)

    def _wake_all(self) -> None:
        self._arrived.notify_all()
        self._filled.notify_all()


class _Queue:
    """Samples in the order of their arrival."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._indices: list[int] = []
        self._begin = 0
        """What lies before is taken. Where it is much, it is given back: see `_answer`."""
        self._arrivals: deque[list[float]] = deque()  # time, samples
        self.count = 0
        """Samples that wait."""

    @property
    def oldest(self) -> float:
        """When the oldest that waits arrived, in seconds; 0 where none waits."""
        return self._arrivals[0][0] if self._arrivals else 0.0

    def add(self, ids: list[int], indices: list[int], now: float) -> None:
        """Put samples at the end. Keeps the lists where none waits."""
        if not ids:
            return
        if self.count:
            self._ids += ids
            self._indices += indices
        else:
            self._ids, self._indices, self._begin = ids, indices, 0
        self._arrivals.append([now, len(ids)])
        self.count += len(ids)

    def take(self, count: int) -> tuple[list[int], list[int]]:
        """Ids and indices of the `count` oldest, which no longer wait."""
        begin, end = self._begin, self._begin + count
        batch = self._ids[begin:end], self._indices[begin:end]
        self._begin = end
        self.count -= count
        if end * 8 > len(self._ids):
            del self._ids[:end], self._indices[:end]
            self._begin = 0
        while count:
            arrival = self._arrivals[0]
            taken = min(count, int(arrival[1]))
            arrival[1] -= taken
            count -= taken
            if not arrival[1]:
                self._arrivals.popleft()
        return batch

    def take_all(self) -> list[int]:
        """The ids of all that wait."""
        return self.take(self.count)[0]


def make_pool(results: NDArray[np.int32]) -> list[QuerySampleResponse]:
    """A response for each label in `results`, which must outlive it. The ids are to be set."""
    address = results.ctypes.data
    return [
        QuerySampleResponse(0, address + _LABEL_BYTES * slot, _LABEL_BYTES)
        for slot in range(len(results))
    ]


def answer_nothing(ids: list[int]) -> None:
    """Report samples without an engine, after an error: with label 0."""
    if not ids:
        return
    results = np.zeros(min(len(ids), 1024), np.int32)
    pool = make_pool(results)
    for begin in range(0, len(ids), len(pool)):
        part = ids[begin : begin + len(pool)]
        deque(map(_set_id, pool, part), maxlen=0)
        QuerySamplesComplete(pool[: len(part)])
