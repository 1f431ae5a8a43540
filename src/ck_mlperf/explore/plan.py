"""What a sweep is about to do: points, what is there already, how long it will take."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from ck_mlperf.explore.runs import ACCURACY, Outcome, PlannedRun, Point
from ck_mlperf.loadgen.settings import read_settings

# A command without its test: measured by bench/explore.py on two cores, for the first estimate.
OVERHEAD_S = 4.0
# user.conf beside the program.
DEFAULT_DURATION_S = 10.0


@dataclass
class Estimate:
    """How long runs will take, from how long such runs took."""

    tests_s: dict[str, list[float]] = field(default_factory=dict)
    """Durations of tests by configuration (an id without its repetition)."""
    overheads_s: list[float] = field(default_factory=list)
    """What commands took beyond their tests."""

    def learn(self, run_id: str, wall_s: float) -> None:
        """Take a test's duration into account."""
        self.tests_s.setdefault(_configuration(run_id), []).append(wall_s)

    def learn_outcome(self, outcome: Outcome) -> None:
        """Take a run into account that has ended; a failed one says little."""
        if outcome.record is not None:
            wall_s = outcome.record["timing"]["wall_s"]
            self.learn(outcome.run.id, wall_s)
            self.overheads_s.append(outcome.wall_s - wall_s)

    def estimate_s(self, runs: Iterable[PlannedRun]) -> float:
        """The duration of `runs`, one after the other."""
        overhead_s = statistics.median(self.overheads_s) if self.overheads_s else OVERHEAD_S
        known = [wall_s for tests_s in self.tests_s.values() for wall_s in tests_s]
        typical_s = statistics.median(known) if known else 0
        return sum(overhead_s + self._estimate_test_s(run, typical_s) for run in runs)

    def _estimate_test_s(self, run: PlannedRun, typical_s: float) -> float:
        same = self.tests_s.get(_configuration(run.id))
        if same:
            return statistics.median(same)
        if run.mode == ACCURACY:
            return typical_s
        settings = read_settings(run.environment)
        if settings.duration_s is not None:
            return settings.duration_s
        if settings.count_override is not None:
            return typical_s  # nobody knows yet how long a query takes
        conf_ms = settings.conf.get("min_duration")
        return DEFAULT_DURATION_S if conf_ms is None else conf_ms / 1000


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep, and which of them are there."""

    runs: Sequence[PlannedRun]
    done: frozenset[str]
    """Names of the runs that are recorded."""
    failed: frozenset[str]
    """Names of the runs that failed and have no record."""

    def list_open(self, retry_failed: bool) -> list[PlannedRun]:
        """What is to be run."""
        settled = self.done if retry_failed else self.done | self.failed
        return [run for run in self.runs if run.id not in settled]


def print_plan(
    console: Console,
    plan: Plan,
    name_of_entry: str,
    notes: Iterable[str],
    open_s: float,
    open_runs: int,
) -> None:
    """Print the points with their runs, and what is to be done."""
    groups: dict[tuple[str, Point], list[PlannedRun]] = {}
    for run in plan.runs:
        groups.setdefault((run.mode, run.point), []).append(run)
    columns: dict[str, list[str]] = {}
    for (mode, point), runs in groups.items():
        samples = point.samples_per_query
        row = {
            "network": str(point.network),
            "scenario": point.scenario,
            "batch": str(point.batch),
            "samples/query": "" if samples in (None, point.batch) else str(samples),
            "queries/s": "" if point.target_qps is None else f"{point.target_qps:g}",
            "measures": "accuracy" if mode == ACCURACY else "performance",
            "runs": str(len(runs)),
            "there": str(sum(run.id in plan.done for run in runs)),
            "failed": str(sum(run.id in plan.failed for run in runs) or ""),
        }
        for name, cell in row.items():
            columns.setdefault(name, []).append(cell)
    table = Table(title=f"experiment {name_of_entry}", title_justify="left")
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    for name in shown:
        is_text = name in ("network", "scenario", "measures")
        table.add_column(name, justify="left" if is_text else "right")
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*cells)
    console.print(table)
    for note in notes:
        console.print(f"note: {note}", highlight=False)
    points = len({point for mode, point in groups if mode != ACCURACY})
    done = sum(run.id in plan.done for run in plan.runs)
    console.print(
        f"{points} points, {len(plan.runs)} runs: {done} there already, {open_runs} to do"
        + (f", about {format_duration(open_s)} (an estimate)" if open_runs else ""),
        highlight=False,
    )


def format_duration(seconds: float) -> str:
    """A duration in words: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _configuration(run_id: str) -> str:
    return run_id.rpartition(".")[0]
