"""The system under test: LoadGen's queries, cut into batches for engines, and their answers.

The same for both interfaces of LoadGen. Ids and indices are lists, or numpy arrays that lie in
LoadGen's own memory: slices are slices of either.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ck_mlperf.common.parallel import map_parallel
from ck_mlperf.loadgen.engines.base import Engine, EngineError
from ck_mlperf.loadgen.harness.batching import BatchPolicy
from ck_mlperf.loadgen.harness.interface import Ids, Indices, Responses
from ck_mlperf.loadgen.harness.samples import SampleLibrary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    MakeResponses = Callable[[NDArray[np.int32]], Responses]

_MOST_AT_ONCE = 1024


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
    make_responses: `Interface.make_responses`.
    """

    def __init__(
        self,
        engine: Engine,
        images: NDArray[np.uint8],
        batch_size: int,
        top5: NDArray[np.int32] | None,
        make_responses: MakeResponses,
    ) -> None:
        self.engine = engine
        self.samples = SampleLibrary(images, engine)
        self.top5 = top5
        self.in_flight: deque[tuple[Ids, Indices]] = deque()
        self.results = np.zeros(batch_size, np.int32)
        self.tallies = [Tally()]
        """One for each set of samples that was loaded, the last one's last."""
        self.responses = make_responses(self.results)

    def load(self, indices: Sequence[int]) -> None:
        """Load a set of samples and count from 0 again."""
        self.samples.load(indices)
        if self.tallies[-1].singles or self.tallies[-1].batches:
            self.tallies.append(Tally())

    def start(self, ids: Ids, indices: Indices) -> None:
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
        self.responses.complete(ids)

    def pick_best(self, labels: NDArray[np.int32], indices: Indices) -> NDArray[np.int32]:
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
    make_responses: `Interface.make_responses`.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        images: NDArray[np.uint8],
        batch_size: int,
        top5: NDArray[np.int32] | None,
        make_responses: MakeResponses,
        sizes: Sequence[int] = (),
    ) -> None:
        """sizes: of the batches that will come, where an engine should be prepared for them."""
        self.error: BaseException | None = None
        self.top5 = top5
        self._sizes = sizes or [batch_size]
        self._is_ready = False
        self.runners = [
            Runner(engine, images, batch_size, top5, make_responses) for engine in engines
        ]
        self._batch_size = batch_size
        self._make_responses = make_responses
        # What SingleStream needs, without a step on the way. Not the bound methods: Python calls a
        # method of an object faster than one that was kept.
        self._runner = runner = self.runners[0]
        self._tally = runner.tallies[-1]
        self._engine = runner.engine
        self._row_by_index = runner.samples.row_by_index
        self._complete_one = runner.responses.complete_one

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

    def issue(self, ids: Ids, indices: Indices) -> None:
        """LoadGen's callback: answer the samples `indices`, each under its response id.

        Lists may be kept, arrays are read during the call only.
        """
        if len(ids) != 1:
            self._answer(ids, indices)
            return
        # SingleStream: each step is part of the latency, so this is `_answer` without its loop.
        label = 0
        try:
            if self.error is None:
                self._engine.enqueue([self._row_by_index[indices[0]]])
                labels = self._engine.collect()
                if labels.shape != (1,):
                    labels = self._runner.pick_best(labels, indices)
                label = labels.item()
                self._tally.singles += 1
        except BaseException as error:
            self.fail(error)
        self._complete_one(ids[0], label)

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

    def _answer(self, ids: Ids, indices: Indices) -> None:
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
                    if isinstance(ids, list):
                        del ids[:begin], indices[:begin]
                        begin = 0
                    give_back_at = math.inf
                if len(in_flight) == engine.depth:
                    runner.complete_oldest()
            while in_flight and self.error is None:
                runner.complete_oldest()
        except BaseException as error:
            self.fail(error)
        if self.error is not None:
            self._answer_nothing(runner.abandon())
            self._answer_nothing(ids[begin:])

    def _answer_nothing(self, ids: Ids) -> None:
        """Report samples without an engine, after an error: with label 0."""
        if not len(ids):
            return
        size = min(len(ids), _MOST_AT_ONCE)
        responses = self._make_responses(np.zeros(size, np.int32))
        for begin in range(0, len(ids), size):
            responses.complete(ids[begin : begin + size])


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
        make_responses: MakeResponses,
        sizes: Sequence[int] = (),
    ) -> None:
        super().__init__(engines, images, batch_size, top5, make_responses, sizes)
        self._policies = policies
        self._answers_after_error = answers_after_error
        self._queue = _Queue()
        self._preparing = len(self.runners)  # workers that are not ready yet
        self._asleep = 0  # workers with nothing to do
        self._is_closing = False
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)  # for who sleeps
        self._filled = threading.Condition(self._lock)  # for who holds a batch back
        self._drained = threading.Condition(self._lock)  # for the flush, and a query in arrays
        self._prepared = threading.Condition(self._lock)  # for the first load
        # They complete samples, so LoadGen keeps their logs: they must live until StartTest
        # returns.
        self._workers = [
            threading.Thread(target=self._work, args=pair, name=f"batches-{number}", daemon=True)
            for number, pair in enumerate(zip(self.runners, policies, strict=True))
        ]
        for worker in self._workers:
            worker.start()

    def issue(self, ids: Ids, indices: Indices) -> None:
        """As of any system. What comes in arrays comes when nothing else waits (not in Server);
        the call then returns when all of it was taken."""
        with self._lock:
            for policy in self._policies:
                policy.arrived(len(ids))
            self._queue.add(ids, indices, time.monotonic())
            if self.error is not None and self._answers_after_error:
                self._answer_nothing(self._queue.take_all())
                return
            if self._asleep:
                self._arrived.notify()  # who takes of it wakes the next where more is left
            if self._queue.count >= self._batch_size:
                self._filled.notify()
            if not isinstance(ids, list):
                self._drained.wait_for(lambda: not self._queue.count)

    def flush(self) -> None:
        with self._lock:
            self._drained.wait_for(self._is_drained)
            if self.error is not None:
                self._answer_nothing(self._queue.take_all())

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
                if len(ids):
                    runner.start(ids, indices)
                    policy.started(time.monotonic(), len(ids))
                else:
                    runner.complete_oldest()
                    policy.finished(time.monotonic())
            except BaseException as error:
                self.fail(error)

    def _wait_for_work(self, runner: Runner, policy: BatchPolicy) -> tuple[Ids, Indices] | None:
        """Ids and indices of the batch to start; empty: complete the oldest; None: the end."""
        while not self._is_closing:
            if self.error is not None:
                self._let_go(runner)
            elif len(runner.in_flight) < runner.engine.depth:
                now, queue = time.monotonic(), self._queue
                count, wait_s = policy.decide(now, queue.count, queue.oldest)
                if count:
                    batch = queue.take(count)
                    if not queue.count:
                        self._drained.notify_all()
                    elif self._asleep:
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
            self._answer_nothing(ids)
            self._answer_nothing(self._queue.take_all())
            self._drained.notify_all()
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
        self._ids: Ids = []
        self._indices: Indices = []
        self._begin = 0
        """What lies before is taken. Where it is much, lists give it back: see `_answer`."""
        self._arrivals: deque[list[float]] = deque()  # time, samples
        self.count = 0
        """Samples that wait."""

    @property
    def oldest(self) -> float:
        """When the oldest that waits arrived, in seconds; 0 where none waits."""
        return self._arrivals[0][0] if self._arrivals else 0.0

    def add(self, ids: Ids, indices: Indices, now: float) -> None:
        """Put samples at the end. Keeps the lists, or arrays, where none waits; where some do, all
        must be lists."""
        if not len(ids):
            return
        if self.count:
            assert isinstance(self._ids, list)
            assert isinstance(self._indices, list)
            self._ids.extend(ids)
            self._indices.extend(indices)
        else:
            self._ids, self._indices, self._begin = ids, indices, 0
        self._arrivals.append([now, len(ids)])
        self.count += len(ids)

    def take(self, count: int) -> tuple[Ids, Indices]:
        """Ids and indices of the `count` oldest, which no longer wait: copies."""
        begin, end = self._begin, self._begin + count
        ids, indices = self._ids[begin:end], self._indices[begin:end]
        self._begin = end
        self.count -= count
        if not isinstance(ids, list):
            ids, indices = ids.copy(), indices.copy()
        elif end * 8 > len(self._ids):
            del self._ids[:end], self._indices[:end]
            self._begin = 0
        while count:
            arrival = self._arrivals[0]
            taken = min(count, int(arrival[1]))
            arrival[1] -= taken
            count -= taken
            if not arrival[1]:
                self._arrivals.popleft()
        return ids, indices

    def take_all(self) -> Ids:
        """The ids of all that wait."""
        return self.take(self.count)[0]
