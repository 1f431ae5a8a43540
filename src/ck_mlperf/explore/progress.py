"""Show the progress of runs: a bar on a terminal, a line per run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.text import Text

from ck_mlperf.explore.entry import Entry
from ck_mlperf.explore.runs import ACCURACY, Outcome, ScheduledRun
from ck_mlperf.explore.schedule import Estimate, format_duration

# A compliance run is never VALID: it is a proof for another run.
_VERDICTS = {True: "VALID", False: "INVALID", None: "LoadGen finds no fault"}


class ProgressWatcher:
    """A `Watcher` that prints, learns how long runs take, and writes failures into the entry.

    runs: those to do. remark: what else to say of an outcome. A context manager: the bar is shown
    inside it.
    """

    def __init__(
        self,
        console: Console,
        entry: Entry,
        runs: Sequence[ScheduledRun],
        estimate: Estimate,
        remark: Callable[[Outcome], Iterable[str]] = lambda outcome: (),
    ) -> None:
        self._console = console
        self._entry = entry
        self._open = {run.id: run for run in runs}
        self._total = len(runs)
        self._estimate = estimate
        self._remark = remark
        self._running: list[ScheduledRun] = []
        self._at_once = 1
        self._left_s, self._left_at = 0.0, time.monotonic()
        self._progress = Progress(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            _LeftColumn(self),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=self._total)
        self._draw()

    def __enter__(self) -> ProgressWatcher:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def started(self, run: ScheduledRun) -> None:
        """Show the run."""
        self._running.append(run)
        self._draw()

    def ended(self, outcome: Outcome) -> None:
        """Print the outcome, and store it if it is a failure."""
        run = outcome.run
        self._running.remove(run)
        del self._open[run.id]
        self._estimate.learn_outcome(outcome)
        self._entry.settle(outcome)
        number = self._total - len(self._open)
        self._draw(advance=1)
        left = "" if self._console.is_terminal else f"; {self.describe_left()}"
        self._console.print(
            escape(
                f"[{number}/{self._total}] {run.description}{describe_precision(outcome)}: "
                f"{describe_outcome(outcome)}"
            )
            + f", {outcome.wall_s:.1f} s{left}",
            highlight=False,
            soft_wrap=True,
        )
        for line in self._remark(outcome):
            self._console.print(f"note: {escape(line)}", highlight=False, soft_wrap=True)

    def describe_left(self) -> str:
        """The time left, in words."""
        if not self._open:
            return "done"
        left_s = max(0.0, self._left_s - (time.monotonic() - self._left_at))
        return f"about {format_duration(left_s)} left"

    def _draw(self, advance: int = 0) -> None:
        running = self._running[0].description if self._running else ""
        if len(self._running) > 1:
            running += f" and {len(self._running) - 1} more"
        self._at_once = max(self._at_once, len(self._running))
        self._left_s = self._estimate.estimate_s(self._open.values()) / self._at_once
        self._left_at = time.monotonic()
        self._progress.update(self._task, advance=advance, description=escape(running))


class _LeftColumn(ProgressColumn):
    """The time left, counting down between the ends of runs."""

    def __init__(self, watcher: ProgressWatcher) -> None:
        super().__init__()
        self._watcher = watcher

    def render(self, task: Task) -> Text:
        return Text(self._watcher.describe_left())


def describe_outcome(outcome: Outcome) -> str:
    """The outcome in a few words: rate and LoadGen's verdict, accuracy, or the error."""
    if outcome.failure is not None:
        return f"FAILED: {outcome.failure.error.splitlines()[0]}"
    assert outcome.record is not None
    if outcome.run.mode == ACCURACY:
        assert outcome.record.accuracy is not None
        return f"accuracy {outcome.record.accuracy.top1_percent:.3f}%"
    rate = outcome.record.samples_per_second
    verdict = _VERDICTS[outcome.record.verdicts.loadgen.valid]
    if rate is None:
        return verdict
    shown = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
    return f"{shown} samples/s, {verdict}"


def describe_precision(outcome: Outcome) -> str:
    """What the network computed in, where its tags do not say it."""
    precision = outcome.record.model.precision if outcome.record else None
    said = outcome.run.configuration.weights.split(",")
    return f", {precision}" if precision and precision not in said else ""
