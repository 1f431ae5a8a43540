"""`ck explore loadgen`: the order of its steps."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console

from ck_mlperf.common.errors import UserError
from ck_mlperf.explore.entry import Entry, hold_lock
from ck_mlperf.explore.local import LocalExecutor
from ck_mlperf.explore.measure import Measurer
from ck_mlperf.explore.options import (
    CLUSTER_OPTIONS,
    SUBMISSION_OPTIONS,
    merge_file,
    read_options,
)
from ck_mlperf.explore.progress import ProgressWatcher
from ck_mlperf.explore.runs import Executor, ScheduledRun
from ck_mlperf.explore.schedule import Estimate, Schedule, print_schedule
from ck_mlperf.explore.search.definition import Search, read_search
from ck_mlperf.explore.search.probes import run_search
from ck_mlperf.explore.submission import read_submission
from ck_mlperf.explore.sweep import Sweep, read_sweep
from ck_mlperf.loadgen.settings import raise_problems

OpenExecutor = Callable[[Entry, int], AbstractContextManager[Executor]]
"""Opens what carries out the runs. Takes their entry, and a descriptor of its lock."""


def explore(
    options: Mapping[str, Any],
    repository: Path,
    open_executor: OpenExecutor,
    dry_run: bool = False,
    retry_failed: bool = False,
) -> int:
    """Carry out the sweep, the search (`find`) or the submission that the options ask for.

    repository: CK's local one. dry_run: print the commands, and run nothing. Returns the exit code.
    """
    console = Console()
    options = merge_file(options)
    given = [option.name for option in SUBMISSION_OPTIONS if option.name in options]
    if given and "submission" not in given:
        raise UserError(f"{', '.join(given)}: means something with --submission= only")
    if given and "find" in options:
        raise UserError("find: leave it out, or submission: the answer is for --qps=")
    if "find" in options:
        search = read_search(options)
        entry = Entry(repository, search.sweep.name)
        if dry_run:
            entry.check(search.define())
            print(shlex.join(search.sweep.schedule(search.configure(search.start), 1).argv))
            return 0
        with hold_lock(repository) as lock:
            entry.make(search.define(), search.sweep.tags)
            with open_executor(entry, lock) as executor:
                measurer = Measurer(search.sweep, entry, executor, retry_failed)
                return search_load(console, search, measurer)
    sweep = read_submission(options) if "submission" in options else read_sweep(options)
    entry = Entry(repository, sweep.name)
    if dry_run:
        entry.check(sweep.define())
        sweep = sweep.take_up(entry, retry_failed)
        _, runs = show_schedule(console, sweep, entry, retry_failed)
        for run in runs:
            print(shlex.join(run.argv))
        return 0
    with hold_lock(repository) as lock:
        entry.make(sweep.define(), sweep.tags)
        return run_sweep(console, sweep, entry, open_executor(entry, lock), retry_failed)


def search_load(console: Console, search: Search, measurer: Measurer) -> int:
    """Carry out a search. Returns the exit code: 1 if no load was found."""
    try:
        return run_search(console, search, measurer)
    except KeyboardInterrupt:
        print("interrupted: the run in flight is lost. The same command continues", file=sys.stderr)
        return 130


@contextlib.contextmanager
def open_executor(entry: Entry, lock: int, options: Mapping[str, str]) -> Iterator[Executor]:
    """What runs the runs: this machine, or the cluster that `cluster` among the options names.

    lock: a descriptor of `hold_lock`. Raises UserError where there is no such cluster.
    """
    if "cluster" in options:
        from ck_mlperf.explore.cluster import (  # Dask is installed where it is asked for
            ClusterExecutor,
            connect,
        )

        values, problems = read_options(options, CLUSTER_OPTIONS)
        raise_problems(problems)
        with connect(values["cluster"], values["jobs"], values["remote_python"]) as client:
            yield ClusterExecutor(client, entry)
    elif options:
        raise UserError(f"{', '.join(options)}: means something with --cluster= only")
    else:
        yield LocalExecutor(entry, lock)


def run_sweep(
    console: Console,
    sweep: Sweep,
    entry: Entry,
    executor: AbstractContextManager[Executor],
    retry_failed: bool,
) -> int:
    """Run what the sweep's entry has not yet. Returns the exit code: 1 if a run failed.

    executor: entered only where there is something to run.
    """
    sweep = sweep.take_up(entry, retry_failed)
    estimate, runs = show_schedule(console, sweep, entry, retry_failed)
    try:
        if runs:
            with executor as opened:
                sweep.prepare(console, Measurer(sweep, entry, opened, retry_failed))
                sweep = sweep.take_up(entry, retry_failed)
                runs = make_schedule(sweep, entry).list_open(retry_failed)
                with ProgressWatcher(console, entry, runs, estimate, sweep.remark) as watcher:
                    opened.run(runs, watcher)
    except KeyboardInterrupt:
        schedule = make_schedule(sweep, entry)
        print(
            f"interrupted: {len(schedule.done)} of {len(schedule.runs)} runs are recorded, the one "
            "in flight is lost. The same command continues",
            file=sys.stderr,
        )
        return 130
    return report_end(console, sweep, entry)


def make_schedule(sweep: Sweep, entry: Entry) -> Schedule:
    """The sweep's runs and what the entry has of them."""
    runs = sweep.list_runs()
    names = {run.id for run in runs}
    done = frozenset(entry.list_recorded()) & names
    return Schedule(runs, done, (frozenset(entry.read_failures()) & names) - done)


def show_schedule(
    console: Console, sweep: Sweep, entry: Entry, retry_failed: bool
) -> tuple[Estimate, list[ScheduledRun]]:
    """Print the schedule. Returns what is known of durations, and the runs to do."""
    schedule = make_schedule(sweep, entry)
    estimate = Estimate()
    for run, wall_s in entry.list_recorded().items():
        estimate.learn(run, wall_s)
    runs = schedule.list_open(retry_failed)
    print_schedule(
        console, schedule, entry.name, sweep.list_notes(), estimate.estimate_s(runs), len(runs)
    )
    return estimate, runs


def report_end(console: Console, sweep: Sweep, entry: Entry) -> int:
    """Print how many runs are recorded, and which failed and why. Returns the exit code."""
    schedule = make_schedule(sweep, entry)
    failures = entry.read_failures()
    failed = [run for run in schedule.runs if run.id in schedule.failed]
    console.print(
        f"{len(schedule.done)} of {len(schedule.runs)} runs are recorded in experiment "
        f"{entry.name}",
        highlight=False,
    )
    for run in failed:
        print(
            f"failed: {run.description}: {failures[run.id].error}\n"
            f"  its output: {entry.log_path(run.id)}",
            file=sys.stderr,
        )
    if failed:
        print(f"failed runs: {len(failed)}; --retry_failed tries them again", file=sys.stderr)
    return 0 if sweep.report(console, entry) and not failed else 1


def hear_signals() -> None:
    """Let SIGTERM and a terminal that hangs up end the sweep as Ctrl-C does, with its benchmark.

    `nohup` is minded; a shell starts what it puts in the background with SIGINT ignored, which the
    benchmark would inherit.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
