"""The system under test: LoadGen's queries, cut into batches for one engine, and their answers.

The same for both interfaces of LoadGen. Ids and indices are lists, or numpy arrays in LoadGen's own
memory: slices are slices of either.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ck_mlperf.common.parallel import map_parallel
from ck_mlperf.loadgen.harness.interface import Ids, Indices, MakeResponses
from ck_mlperf.loadgen.harness.runner import INT32, Runner

_MOST_AT_ONCE = 1024

CheckImages = Callable[[Sequence[int]], contextlib.AbstractContextManager[Any]]
"""With indices: the images are loaded in its block. It raises where they are wrong."""


class SystemUnderTest:
    """Answers each query before `issue` returns, with one engine: SingleStream, MultiStream,
    Offline.

    LoadGen cannot be stopped from a callback, and an exception that passes through it leaves
    threads behind that end the process by abort. So no exception leaves a callback: the first one
    is kept in `error`, and from then on every query is answered at once with label 0, so that
    LoadGen soon comes to its end. Whoever started the test then raises `error` and drops the logs.
    """

    def __init__(
        self, runners: Sequence[Runner], make_responses: MakeResponses, sizes: Sequence[int] = ()
    ) -> None:
        """sizes: of the batches that will come, for the engines to prepare; (): whole ones."""
        self.error: BaseException | None = None
        self.runners = runners
        self.check_images: CheckImages = contextlib.nullcontext
        self.top5 = runners[0].top5
        self._is_ready = False
        self._make_responses = make_responses
        # What SingleStream needs, without an attribute on the way. Not the bound methods: Python
        # calls a method of an object faster than one that was kept.
        self._runner = runner = runners[0]
        self._batch_size = len(runner.results)
        self._sizes = sizes or [self._batch_size]
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
                with self.check_images(sorted(set(indices))):
                    map_parallel(lambda runner: runner.load(indices), self.runners)
            self._tally = self._runner.tallies[-1]
            self._row_by_index = self._runner.samples.row_by_index
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

        Lists may be kept; arrays are read during the call only.
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
                if labels.size != 1 or labels.dtype is not INT32:
                    labels = self._runner.pick_best(labels, indices)
                label = labels.item()
                self._tally.singles += 1
        except BaseException as error:
            self.fail(error)
        self._complete_one(ids[0], label)

    def flush(self) -> None:
        """LoadGen's callback: no more queries for now."""

    def fail(self, error: BaseException) -> None:
        """Keep the first error; from any thread."""
        if self.error is None:
            self.error = error

    def count_answers(self) -> int:
        """The samples that were answered so far; from any thread."""
        tallies = [tally for runner in self.runners for tally in runner.tallies]
        return sum(tally.singles + tally.samples for tally in tallies)

    def close(self) -> None:
        """End what the system started; after the test."""

    def _make_ready(self) -> None:
        """Prepare the engine in the thread that will use it: LoadGen's, which loads and issues."""
        self._engine.prepare(self._sizes)

    def _answer(self, ids: Ids, indices: Indices) -> None:
        """Hand the samples to the engine batch by batch, as many at a time as it takes.

        May empty the lists, which LoadGen creates for each call: an Offline query's hold tens of
        millions of numbers of 40 bytes. The first eighth is given back early, so that the latencies
        that LoadGen notes meanwhile (8 bytes each) need no memory on top.
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
        """Report samples with label 0, without an engine: after an error."""
        if not len(ids):
            return
        size = min(len(ids), _MOST_AT_ONCE)
        responses = self._make_responses(np.zeros(size, np.int32))
        for begin in range(0, len(ids), size):
            responses.complete(ids[begin : begin + size])
