"""Measure one point at a time, for who chooses the next by what came of the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.explore.entry import Entry
from ck_mlperf.explore.runs import Executor, Outcome, PlannedRun, Point
from ck_mlperf.explore.sweep import Sweep


class RunFailedError(UserError):
    """A run left no record. The message says which, why, and where all that it printed is."""


@dataclass
class Measurer:
    """Runs points of a sweep's program under its settings, each once.

    sweep: its program, environment, count, duration and name; its axes do not matter here. What
    the entry has already is not run again; a run that failed before is, if `retry_failed`.
    """

    sweep: Sweep
    entry: Entry
    executor: Executor
    retry_failed: bool = False
    outcomes: list[Outcome] = field(default_factory=list)
    """Of the runs that were not there already."""

    def measure(self, point: Point, repetition: int) -> Mapping[str, Any]:
        """The record of a repetition (from 1) of a point. Raises RunFailedError."""
        run = self.sweep.plan(point, repetition)
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
            f"{run.description}: {failure['error']}\nAll that it printed: "
            f"{self.entry.log_path(run.id)}. --retry_failed tries it again"
        )

    def started(self, run: PlannedRun) -> None:
        """See `Watcher`."""

    def ended(self, outcome: Outcome) -> None:
        """See `Watcher`."""
        self.entry.settle(outcome)
        self.outcomes.append(outcome)
