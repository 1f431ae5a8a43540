"""What a sweep will run, in order; which of it is done; how long the rest will take."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from ck_mlperf.explore.runs import ACCURACY, Configuration, Outcome, ScheduledRun
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
        self.tests_s.setdefault(_drop_repetition(run_id), []).append(wall_s)

    def learn_outcome(self, outcome: Outcome) -> None:
        """Take a run into account that has ended; a failed one says little."""
        if outcome.record is not None:
            wall_s = outcome.record.timing.wall_s
            self.learn(outcome.run.id, wall_s)
            self.overheads_s.append(outcome.wall_s - wall_s)

    def estimate_s(self, runs: Iterable[ScheduledRun]) -> float:
        """The duration of `runs`, one after the other."""
        overhead_s = statistics.median(self.overheads_s) if self.overheads_s else OVERHEAD_S
        known = [wall_s for tests_s in self.tests_s.values() for wall_s in tests_s]
        typical_s = statistics.median(known) if known else 0
        return sum(overhead_s + self._estimate_test_s(run, typical_s) for run in runs)

    def _estimate_test_s(self, run: ScheduledRun, typical_s: float) -> float:
        same = self.tests_s.get(_drop_repetition(run.id))
        if same:
            return statistics.median(same)
        if run.mode == ACCURACY:
            return typical_s
        settings = read_settings(run.environment)
        duration_s = settings.duration_s
        if duration_s is None and settings.count_override is not None:
            return typical_s  # nobody knows yet how long a query takes
        if duration_s is None:
            duration_s = settings.conf.get("min_duration", 1000 * DEFAULT_DURATION_S) / 1000
        # LoadGen takes so many samples in Offline that they last for 10% more.
        return duration_s * (1.1 if settings.scenario == "Offline" else 1)


@dataclass(frozen=True)
class Schedule:
    """The runs of a sweep, and which of them are done."""

    runs: Sequence[ScheduledRun]
    done: frozenset[str]
    """Ids of the runs that are recorded."""
    failed: frozenset[str]
    """Ids of the runs that failed and have no record."""

    def list_open(self, retry_failed: bool) -> list[ScheduledRun]:
        """The runs to do."""
        settled = self.done if retry_failed else self.done | self.failed
        return [run for run in self.runs if run.id not in settled]


def print_schedule(
    console: Console,
    schedule: Schedule,
    experiment: str,
    notes: Iterable[str],
    open_s: float,
    open_runs: int,
) -> None:
    """Print the configurations with their runs, and how many are to do.

    open_s: an estimate for the `open_runs` that are to do.
    """
    groups: dict[tuple[str, Configuration], list[ScheduledRun]] = {}
    for run in schedule.runs:
        groups.setdefault((run.measures, run.configuration), []).append(run)
    columns: dict[str, list[str]] = {}
    for (measures, configuration), runs in groups.items():
        samples, qps = configuration.samples_per_query, configuration.target_qps
        row = {
            "network": str(configuration.network),
            "scenario": configuration.scenario,
            "batch": str(configuration.batch),
            "samples/query": "" if samples in (None, configuration.batch) else str(samples),
            "queries/s": "" if qps is None else f"{qps:g}",
            "measures": measures,
            "runs": str(len(runs)),
            "done": str(sum(run.id in schedule.done for run in runs)),
            "failed": str(sum(run.id in schedule.failed for run in runs) or ""),
        }
        for name, cell in row.items():
            columns.setdefault(name, []).append(cell)
    table = Table(title=f"experiment {experiment}", title_justify="left")
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    for name in shown:
        is_text = name in ("network", "scenario", "measures")
        table.add_column(name, justify="left" if is_text else "right")
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*cells)
    console.print(table)
    for note in notes:
        console.print(f"note: {note}", highlight=False)
    count = len({run.configuration for run in schedule.runs if run.mode != ACCURACY})
    done = sum(run.id in schedule.done for run in schedule.runs)
    console.print(
        f"{count} configuration{'' if count == 1 else 's'}, {len(schedule.runs)} runs: "
        f"{done} done, {open_runs} to do"
        + (f", about {format_duration(open_s)} (an estimate)" if open_runs else ""),
        highlight=False,
    )


def format_duration(seconds: float) -> str:
    """A duration in words: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _drop_repetition(run_id: str) -> str:
    return run_id.rpartition(".")[0]
