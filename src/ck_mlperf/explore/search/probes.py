"""Carry a load search out, by recorded probes."""

from __future__ import annotations

import math
from dataclasses import replace

from rich.console import Console

from ck_mlperf.explore.measure import Measurer, RunFailedError
from ck_mlperf.explore.search.algorithm import Answer, list_counts, list_rates, search_largest
from ck_mlperf.explore.search.definition import Search
from ck_mlperf.explore.search.describe import (
    describe_answer,
    describe_disturbed,
    describe_rate,
    describe_repetitions,
    find_rate,
    make_table,
)
from ck_mlperf.results.record import Record

# How far below its start Server is searched: each halving doubles the time that 662 queries take.
_DEEPEST = 16
# A probe with too few queries is repeated with as many as it needs, up to so many times as many.
_MOST_GROWTH = 16


class Prober:
    """Probes the loads that a search asks for, and prints what came of each."""

    def __init__(self, console: Console, search: Search, measurer: Measurer) -> None:
        self._console = console
        self._search = search
        self._measurer = measurer
        self.records: dict[float, list[Record]] = {}
        """Of the probes that did not fail, by load."""
        self.measured: list[Record] = []
        """The records of all runs, in the order in which they were asked for."""
        self.longer = 0
        """How many runs were repetitions of a probe that had too few queries."""
        self._probed: dict[float, int] = {}

    def search(self) -> Answer:
        """The answer. Raises RunFailedError where the first probe fails, except in Offline."""
        search = self._search
        start = self._measure_start() if search.start is None else search.start
        if search.scenario == "Server":
            loads = list_rates(search.resolution, lowest=start / _DEEPEST)
        else:
            loads = list(map(float, list_counts(search.limit, search.resolution)))
        steps = search_largest(loads, start, search.sweep.repetitions, search.max_runs)
        try:
            load = next(steps)
            while True:
                load = steps.send(self._is_valid(load))
        except StopIteration as ended:
            answer: Answer = ended.value
            return answer

    def measure_repeatedly(self) -> list[float]:
        """SingleStream's rates in samples/s, of as many runs as `repetitions` says."""
        rates = []
        for repetition in range(1, self._search.sweep.repetitions + 1):
            record = self._measure(None, repetition)
            rates.append(find_rate(record))
            self._say(f"run {repetition}: {rates[-1]:.4g} samples/s")
        return rates

    def _measure_start(self) -> float:
        record = self._measure(None, 1)
        start = record.settings.get_loadgen_number("server_target_qps")
        self._say(f"start: {start:.5g} queries/s, half of what the engine did before a test")
        return start

    def _is_valid(self, load: float) -> bool:
        self._probed[load] = repetition = self._probed.get(load, 0) + 1
        what = f"{load:g} {self._search.load_name}, run {repetition}"
        try:
            record = self._measure_long_enough(load, repetition, what)
        except RunFailedError as error:
            if not self.records and self._search.scenario != "Offline":
                raise
            self._say(f"{what}: FAILED, which counts as INVALID: {str(error).splitlines()[0]}")
            return False
        self.records.setdefault(load, []).append(record)
        is_valid = self._search.rules.is_met(record)
        reason = "VALID" if is_valid else f"INVALID ({self._search.rules.explain(record)})"
        self._say(f"{what}: {reason}, {describe_rate(record)}")
        return is_valid

    def _measure_long_enough(self, load: float, repetition: int, what: str) -> Record:
        """A record of enough queries to tell: a probe is lengthened before its load is lowered."""
        record = self._measure(load, repetition)
        assert record.counts is not None  # a search has performance runs only
        most = _MOST_GROWTH * record.counts.queries
        while needed := self._search.rules.count_needed_queries(record):
            if needed > most:
                break
            # A longer run may have a few more late queries.
            count = math.ceil(1.25 * max(needed, record.counts.queries))
            self._say(f"{what}: {self._search.rules.explain(record)}; again with {count}")
            sweep = replace(self._search.sweep, count=str(count))
            record = replace(self._measurer, sweep=sweep).measure(
                self._search.configure(load), repetition
            )
            self.measured.append(record)
            self.longer += 1
            assert record.counts is not None
        return record

    def _measure(self, load: float | None, repetition: int) -> Record:
        record = self._measurer.measure(self._search.configure(load), repetition)
        self.measured.append(record)
        return record

    def _say(self, text: str) -> None:
        _print(self._console, text)


def run_search(console: Console, search: Search, measurer: Measurer) -> int:
    """Carry a search out and print the answer. Returns the exit code: 0 with an answer."""
    prober = Prober(console, search, measurer)
    answer = None
    if search.scenario == "SingleStream":
        lines = ["SingleStream sends a sample when the last one is done: no load to search for"]
        lines += describe_repetitions(prober.measure_repeatedly(), "SingleStream")
    else:
        _print(console, f"{search.scenario}, judged by {search.rules.description}")
        answer = prober.search()
        console.print(make_table(search, answer, prober.records))
        lines = describe_answer(search, answer, prober.longer)
        if search.scenario == "Offline" and answer.load is not None:
            rates = [find_rate(record) for record in prober.records[answer.load]]
            lines += describe_repetitions(rates, f"batch {answer.load:g}")
    lines += describe_disturbed(prober.measured)
    lines.append(f"All runs are in experiment {search.sweep.name}")
    for line in lines:
        _print(console, line)
    return 0 if answer is None or answer.load is not None else 1


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
