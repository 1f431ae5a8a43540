"""The answer of a load search in words: what was found, and how sure that is."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from rich.table import Table

from ck_mlperf.explore.search.algorithm import CONFIDENCE, Answer, Ending
from ck_mlperf.explore.search.definition import Search
from ck_mlperf.results.record import Record


def make_table(search: Search, answer: Answer, records: Mapping[float, Sequence[Record]]) -> Table:
    """The loads that were probed, with their verdicts and figures. records: by load."""
    table = Table()
    for column in (search.load_name, "VALID", "samples/s", "p99 ms"):
        table.add_column(column, justify="right")
    for load, count in answer.counts.items():
        measured = records.get(load, [])
        table.add_row(
            f"{load:g}",
            f"{count.valid} of {count.runs}",
            _summarize([find_rate(record) for record in measured]),
            _summarize([_find_p99_ms(record) for record in measured]),
            style="bold" if load == answer.load else "",
        )
    return table


def describe_answer(search: Search, answer: Answer, longer: int) -> list[str]:
    """What was found and how sure that is, in lines. longer: how many probes were repeated with
    more queries."""
    lowest, highest = min(answer.counts), max(answer.counts)
    started = " and one for the start" if search.start is None else ""
    if longer:
        started += f", {longer} repeated with more queries"
    cost = (
        f"{answer.runs} runs{started}; a grid of the loads from {lowest:g} to {highest:g}, each "
        f"once but those at the edge, takes {answer.grid_runs}"
    )
    if answer.ending is Ending.BUDGET:
        valid = [load for load, c in answer.counts.items() if c.valid == c.runs]
        invalid = [load for load, c in answer.counts.items() if c.valid < c.runs]
        return [
            f"no answer: --max_runs={search.max_runs} is used up. So far the highest load that was "
            f"VALID in all its runs is {_show(valid, max)}, the lowest that was not "
            f"{_show(invalid, min)}. The same command with more continues"
        ]
    if answer.load is None:
        return [
            f"no load was VALID {search.sweep.repetitions} times in a row, down to {lowest:g} "
            f"{search.load_name}. A single query may take longer than the bound",
            cost,
        ]
    count = answer.counts[answer.load]
    if answer.above is None:
        edge = f"{count} runs; it is the highest load that may be tried"
    else:
        edge = f"{count} runs; the next load, {answer.above:g}, was {answer.counts[answer.above]}"
    bound = "Clopper and Pearson's bound"
    if answer.candidates > 1:
        bound += f", shared by the {answer.candidates} loads that were candidates"
    return [
        f"the largest load that is VALID: {answer.load:g} {search.load_name}",
        f"  {edge}",
        f"  with {CONFIDENCE:.0%} confidence, a run at this load is VALID with a chance of at "
        f"least {answer.least_chance:.0%} ({bound}; for independent runs). More --repetitions= "
        "say more",
        "  assumed: a higher load is never easier",
        cost,
    ]


def describe_repetitions(rates: Sequence[float], what: str) -> list[str]:
    """The median of a rate, and the interval that its runs span, in lines.

    The true median is outside the span of n runs if all are above it or all below: the chance of
    that is 2**(1-n).
    """
    confidence = 1 - 2.0 ** (1 - len(rates))
    return [
        f"{what}: median of {len(rates)} runs {statistics.median(rates):.5g} samples/s; the true "
        f"median is between {min(rates):.5g} and {max(rates):.5g} with {confidence:.0%} confidence"
    ]


def describe_disturbed(records: Sequence[Record]) -> list[str]:
    """How many runs the machine disturbed, if any: their verdicts may be wrong."""
    kinds = [{found.kind for found in record.find_disturbances()} for record in records]
    disturbed = [of_run for of_run in kinds if of_run]
    if not disturbed:
        return []
    return [
        f"doubtful: {len(disturbed)} of {len(records)} runs were disturbed "
        f"({', '.join(sorted(set().union(*disturbed)))}): a quiet machine may bear another load; "
        "`ck analyze loadgen` says what disturbed them"
    ]


def describe_rate(record: Record) -> str:
    """A run's throughput and tail latency."""
    return f"{find_rate(record):.4g} samples/s, p99 {_find_p99_ms(record):.4g} ms"


def find_rate(record: Record) -> float:
    """A performance run's throughput in samples/s; 0 where a single query leaves none."""
    return record.samples_per_second or 0.0


def _find_p99_ms(record: Record) -> float:
    assert record.latencies_ns is not None  # a search has performance runs only
    return record.latencies_ns.p99 / 1e6


def _summarize(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.4g}" if values else "-"


def _show(loads: Sequence[float], choose: Callable[[Sequence[float]], float]) -> str:
    return f"{choose(loads):g}" if loads else "none"
