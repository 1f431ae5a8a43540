"""The system under test with a queue: a thread for each engine, which forms batches and runs them.

For Server, and for any scenario with several engines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from ck_mlperf.loadgen.engines.base import Engine
from ck_mlperf.loadgen.harness.batching import BatchPolicy
from ck_mlperf.loadgen.harness.interface import Ids, Indices, MakeResponses
from ck_mlperf.loadgen.harness.runner import Runner
from ck_mlperf.loadgen.harness.sample_queue import SampleQueue
from ck_mlperf.loadgen.harness.sut import SystemUnderTest


class QueuedSystem(SystemUnderTest):
    """Queues the samples; a worker for each engine takes batches of them, as its policy says.

    After an error each worker lets go of its batches. Where `answers_after_error`, open and new
    samples are then answered at once, as with one engine. Otherwise (Server) they are kept until
    the flush: LoadGen, which would send for as long as it had planned, then ends because too many
    queries are open (server_max_async_queries).
    """

    def __init__(
        self,
        runners: Sequence[Runner],
        make_responses: MakeResponses,
        sizes: Sequence[int],
        policies: Sequence[BatchPolicy],
        answers_after_error: bool,
    ) -> None:
        """policies: one for each runner."""
        super().__init__(runners, make_responses, sizes)
        self._policies = policies
        self._answers_after_error = answers_after_error
        self._queue = SampleQueue()
        self._preparing = len(runners)
        """Workers that are not ready yet."""
        self._asleep = 0
        """Workers with nothing to do."""
        self._is_closing = False
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)  # wakes a worker that sleeps
        self._filled = threading.Condition(self._lock)  # wakes a worker that holds a batch back
        self._drained = threading.Condition(self._lock)  # ends the flush, or a query in arrays
        self._prepared = threading.Condition(self._lock)  # lets the first load go on
        # They complete samples, so LoadGen keeps their logs: they must live until StartTest
        # returns.
        self._workers = [
            threading.Thread(target=self._work, args=pair, name=f"batches-{number}", daemon=True)
            for number, pair in enumerate(zip(runners, policies, strict=True))
        ]
        for worker in self._workers:
            worker.start()

    def issue(self, ids: Ids, indices: Indices) -> None:
        """As of any system. Arrays (not in Server) come only while no sample waits; the call then
        returns once all of them are taken."""
        with self._lock:
            for policy in self._policies:
                policy.arrived(len(ids))
            self._queue.add(ids, indices, time.monotonic())
            if self.error is not None and self._answers_after_error:
                self._answer_nothing(self._queue.take_all())
                return
            if self._asleep:
                self._arrived.notify()  # one: a worker that leaves samples wakes the next
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
