"""Measure one configuration at a time, for callers that choose the next by the last result."""

from __future__ import annotations

from dataclasses import dataclass, field

from ck_mlperf.common.errors import UserError
from ck_mlperf.explore.entry import Entry
from ck_mlperf.explore.runs import Configuration, Executor, Outcome, ScheduledRun
from ck_mlperf.explore.sweep import Sweep
from ck_mlperf.results.record import Record


class RunFailedError(UserError):
    """A run left no record. The message says which, why, and where its output is."""


@dataclass
class Measurer:
    """Runs configurations with a sweep's program and settings, each repetition once.

    sweep: its program, environment, count, duration and name; its axes do not matter here. What
    the entry has already is not run again; a run that failed before is, if `retry_failed`.
    """

    sweep: Sweep
    entry: Entry
    executor: Executor
    retry_failed: bool = False
    outcomes: list[Outcome] = field(default_factory=list)
    """Of the runs that the entry did not have."""

    def measure(self, configuration: Configuration, repetition: int) -> Record:
        """The record of a repetition (from 1). Raises RunFailedError."""
        run = self.sweep.schedule(configuration, repetition)
        record = self.entry.read_record(run.id)
        if record is not None:
            return record
        failure = None if self.retry_failed else self.entry.read_failures().get(run.id)
        if failure is None:
            self.executor.run([run], self)
            outcome = self.outcomes[-1]
            if outcome.record is not None:
                return outcome.record
            failure = self.entry.read_failures()[run.id]
        raise RunFailedError(
            f"{run.description}: {failure.error}\nIts output: "
            f"{self.entry.log_path(run.id)}. --retry_failed tries it again"
        )

    def started(self, run: ScheduledRun) -> None:
        """See `Watcher`."""

    def ended(self, outcome: Outcome) -> None:
        """See `Watcher`."""
        self.entry.settle(outcome)
        self.outcomes.append(outcome)
