"""`ck explore loadgen --find=max`: the largest load that is VALID, by recorded runs.

What is searched is the scenario's: Server's queries per second, MultiStream's samples per query,
Offline's batch (LoadGen drives it at the highest rate there is). SingleStream has nothing that
could be raised: it is measured again and again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ck_mlperf.common.errors import UserError
from ck_mlperf.explore.measure import Measurer, RunFailedError
from ck_mlperf.explore.plan import DEFAULT_DURATION_S
from ck_mlperf.explore.runs import Point
from ck_mlperf.explore.search import (
    CONFIDENCE,
    Ending,
    Finding,
    find_largest,
    list_counts,
    list_rates,
)
from ck_mlperf.explore.sweep import Sweep, read_integer, read_sweep, read_yaml
from ck_mlperf.loadgen.settings import DEFAULT_BATCH_SIZE
from ck_mlperf.machine.disturbances import find_disturbances
from ck_mlperf.results.rules import load_rules

OPTIONS = ("find", "rules", "resolution", "limit", "start", "max_runs")
LOADGEN = "loadgen"

_LOADS = {
    "Server": "queries/s",
    "MultiStream": "samples per query",
    "Offline": "samples at once (batch)",
}
# What a load can change. The rest (duration, counts, images) is the run's to have or not.
_OF_LOAD = ("loadgen_valid", "loadgen_errors")
_LATENCIES = ("p90_ms", "p99_ms", "early_stopped_p90_ms", "early_stopped_p99_ms")
# Fewer queries never are VALID in Server, whatever the load (rules.json: early stopping, 99%).
_LEAST_QUERIES = 662
_DEFAULT_RESOLUTION = 0.02
_DEFAULT_LIMIT = 4096
_DEFAULT_MAX_RUNS = 60
_DEFAULT_SAMPLES_PER_QUERY = 8
# How far below its start Server is searched: each halving doubles the time that 662 queries take.
_DEEPEST = 16
_SINGLE_STREAM_RUNS = 6


@dataclass(frozen=True)
class Rules:
    """By what a probe is judged."""

    id: str
    """loadgen: LoadGen's verdict; else the id of a set in ck_mlperf/results/rules.json."""
    metrics: tuple[str, ...]
    """Of the set's checks, those that a load can change."""
    description: str

    def is_met(self, record: Mapping[str, Any]) -> bool:
        """Whether the run is VALID under these rules."""
        if self.id == LOADGEN:
            return bool(record["verdicts"]["loadgen"]["valid"])
        (verdict,) = (v for v in record["verdicts"]["rules"] if v["id"] == self.id)
        return all(check["ok"] for check in verdict["checks"] if check["metric"] in self.metrics)


def read_rules(rules: str, scenario: str) -> Rules:
    """The rules of that name. Raises UserError where they have nothing to say about a load."""
    if rules == LOADGEN:
        if scenario == "MultiStream":
            raise UserError(
                "rules: LoadGen has no latency bound in MultiStream, so that every load is VALID. "
                "Want --rules=v0.5"
            )
        return Rules(LOADGEN, (), "LoadGen's verdict")
    sets = {rule_set["id"]: rule_set for rule_set in load_rules()["rule_sets"]}
    if rules not in sets:
        raise UserError(f"rules: '{rules[:50]}': want {LOADGEN} or one of {', '.join(sets)}")
    checks = [
        check
        for check in sets[rules]["checks"]
        if scenario in check.get("scenarios", (scenario,))
        and (check["metric"] in _OF_LOAD or check["metric"] in _LATENCIES)
    ]
    bounds = [
        f"{check['metric'].removesuffix('_ms')} at most {check['at_most']} ms"
        for check in checks
        if check["metric"] in _LATENCIES
    ]
    if scenario not in sets[rules]["scenarios"] or not bounds:
        raise UserError(f"rules: {rules} sets no bound that a load in {scenario} could break")
    description = f"the latency bound of {sets[rules]['title']}, {', '.join(bounds)}"
    if scenario in sets[rules]["stand_in"]:
        description += f" (a stand-in for it: {sets[rules]['stand_in'][scenario]})"
    return Rules(rules, tuple(check["metric"] for check in checks), description)


@dataclass(frozen=True)
class Search:
    """What is looked for, and how."""

    sweep: Sweep
    """One network and one scenario, with the settings of all probes; its repetitions are those at
    the edge."""
    rules: Rules
    resolution: float
    """The smallest step, as a share of the load; 0: whole numbers."""
    limit: int
    """The highest whole number that is tried."""
    start: float | None
    """The load to begin with; None, in Server: half of what the engine does before a test."""
    max_runs: int

    @property
    def scenario(self) -> str:
        """The scenario."""
        return self.sweep.scenario[0]

    def define(self) -> dict[str, Any]:
        """What makes the probes others where it differs: rules and repetitions do not."""
        definition = self.sweep.define()
        for key in ("repetitions", "accuracy"):
            del definition[key]
        return {"find": "max", **definition}

    def make_point(self, load: float | None) -> Point:
        """A load as what is measured; None: without one, in Server half of what the engine does."""
        (network,) = self.sweep.network
        (batch,) = self.sweep.batch or (None,)
        if self.scenario == "Server":
            return Point(network, "Server", batch or DEFAULT_BATCH_SIZE, target_qps=load)
        if load is None:
            return Point(network, self.scenario, 1)
        if self.scenario == "Offline":
            return Point(network, "Offline", int(load))
        return Point(network, "MultiStream", batch or int(load), samples_per_query=int(load))


def read_search(options: Mapping[str, Any]) -> Search:
    """The search that options ask for, those of a sweep included. Raises UserError."""
    if options["find"] != "max":
        raise UserError(f"find: '{options['find']}': want max")
    options = dict(options)
    if "file" in options:
        options = {**read_yaml(Path(str(options.pop("file")))), **options}
    sweep = read_sweep({key: value for key, value in options.items() if key not in OPTIONS})
    (scenario,), batch = sweep.scenario[:1], sweep.batch
    if len(sweep.scenario) * len(sweep.network) * max(1, len(batch)) > 1:
        raise UserError("find: want one scenario, one network and one batch at a time")
    if sweep.qps or sweep.samples_per_query or (batch and scenario == "Offline"):
        raise UserError(f"find: leave out what is searched: {_LOADS[scenario]}")
    if "repetitions" not in options and scenario == "SingleStream":
        sweep = replace(sweep, repetitions=_SINGLE_STREAM_RUNS)
    if sweep.repetitions < 2:
        raise UserError("repetitions: want at least 2: one VALID at the edge is chance")
    if "name" not in options:
        kind = f"{sweep.name.removeprefix('explore.')}.{scenario.lower()}"
        sweep = replace(sweep, name=f"find.{kind}"[:100])
    if scenario == "Server" and sweep.count is None:
        # A count alone would end the test with its last query.
        sweep = replace(
            sweep,
            count=str(_LEAST_QUERIES),
            duration=sweep.duration or f"{DEFAULT_DURATION_S:g}",
        )
    default_resolution = _DEFAULT_RESOLUTION if scenario == "Server" else 0
    rules = options.get("rules", "v0.5" if scenario == "MultiStream" else LOADGEN)
    limit = _read_integer(options, "limit", 65_536, _DEFAULT_LIMIT)
    # In Offline nothing but memory and the model's own limit stands against the most.
    default_start = {"Offline": limit, "MultiStream": _DEFAULT_SAMPLES_PER_QUERY}.get(scenario)
    return Search(
        sweep,
        read_rules(rules, scenario),
        _read_number(options, "resolution", 0.001, 0.5, default_resolution) or 0,
        limit,
        _read_number(options, "start", 0.001, 1e8, default_start),
        _read_integer(options, "max_runs", 1000, _DEFAULT_MAX_RUNS),
    )


def _read_integer(options: Mapping[str, Any], key: str, high: int, default: int) -> int:
    try:
        return read_integer([str(options.get(key, default))], 1, high)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error


def _read_number(
    options: Mapping[str, Any], key: str, low: float, high: float, default: float | None
) -> float | None:
    if key not in options:
        return default
    try:
        value = float(options[key])
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise UserError(f"{key}: '{options[key]}': want a number from {low:g} to {high:,g}")
    return value


class Finder:
    """Carries a search out, and says what it does."""

    def __init__(self, console: Console, search: Search, measurer: Measurer) -> None:
        self._console = console
        self._search = search
        self._measurer = measurer
        self.records: dict[float, list[Mapping[str, Any]]] = {}
        """Of the probes that did not fail, by load."""
        self.measured: list[Mapping[str, Any]] = []
        """The records of all runs, in the order in which they were asked for."""
        self._tried: dict[float, int] = {}

    def find(self) -> Finding:
        """The answer. Raises RunFailedError where the first probe fails, but in Offline."""
        search = self._search
        start = self._measure_start() if search.start is None else search.start
        if search.scenario == "Server":
            loads = list_rates(search.resolution, lowest=start / _DEEPEST)
        else:
            loads = list(map(float, list_counts(search.limit, search.resolution)))
        steps = find_largest(loads, start, search.sweep.repetitions, search.max_runs)
        try:
            load = next(steps)
            while True:
                load = steps.send(self._is_valid(load))
        except StopIteration as ended:
            finding: Finding = ended.value
            return finding

    def measure_repeatedly(self) -> list[float]:
        """SingleStream's rates in samples/s, of as many runs as `repetitions` says."""
        rates = []
        for repetition in range(1, self._search.sweep.repetitions + 1):
            record = self._measure(None, repetition)
            rates.append(record["throughput"]["samples_per_second"])
            self._say(f"run {repetition}: {rates[-1]:.4g} samples/s")
        return rates

    def _measure_start(self) -> float:
        record = self._measure(None, 1)
        start = float(record["settings"]["loadgen"]["server_target_qps"])
        self._say(f"start: {start:.5g} queries/s, half of what the engine did before a test")
        return start

    def _is_valid(self, load: float) -> bool:
        self._tried[load] = repetition = self._tried.get(load, 0) + 1
        what = f"{load:g} {_LOADS[self._search.scenario]}, run {repetition}"
        try:
            record = self._measure(load, repetition)
        except RunFailedError as error:
            if not self.records and self._search.scenario != "Offline":
                raise
            self._say(f"{what}: FAILED, which counts as INVALID: {str(error).splitlines()[0]}")
            return False
        self.records.setdefault(load, []).append(record)
        is_valid = self._search.rules.is_met(record)
        self._say(f"{what}: {'VALID' if is_valid else 'INVALID'}, {_describe(record)}")
        return is_valid

    def _measure(self, load: float | None, repetition: int) -> Mapping[str, Any]:
        record = self._measurer.measure(self._search.make_point(load), repetition)
        self.measured.append(record)
        return record

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def run_search(console: Console, search: Search, measurer: Measurer) -> int:
    """Carry a search out and print what came of it. Returns the exit code: 0 with an answer."""
    finder = Finder(console, search, measurer)
    if search.scenario == "SingleStream":
        lines = describe_repetitions(finder.measure_repeatedly(), "SingleStream")
        lines[:0] = ["SingleStream sends a sample when the last one is done: no load to search for"]
        finding = None
    else:
        console.print(
            f"{search.scenario}, judged by {search.rules.description}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        finding = finder.find()
        console.print(make_table(search, finding, finder.records))
        lines = describe_finding(search, finding)
        if search.scenario == "Offline" and finding.load is not None:
            rates = [_get_rate(record) for record in finder.records[finding.load]]
            lines += describe_repetitions(rates, f"batch {finding.load:g}")
    lines += describe_disturbed(finder.measured)
    lines.append(f"All runs are in experiment {search.sweep.name}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0 if finding is None or finding.load is not None else 1


def make_table(
    search: Search, finding: Finding, records: Mapping[float, list[Mapping[str, Any]]]
) -> Table:
    """The loads that were tried, with what came of them."""
    table = Table()
    for column in (_LOADS[search.scenario], "VALID", "samples/s", "p99 ms"):
        table.add_column(column, justify="right")
    for load, count in finding.counts.items():
        measured = records.get(load, [])
        rates = [_get_rate(record) for record in measured]
        latencies = [record["latencies_ns"]["p99"] / 1e6 for record in measured]
        table.add_row(
            f"{load:g}",
            f"{count.valid} of {count.runs}",
            _summarize(rates),
            _summarize(latencies),
            style="bold" if load == finding.load else "",
        )
    return table


def describe_finding(search: Search, finding: Finding) -> list[str]:
    """What was found and how sure that is, in lines."""
    unit = _LOADS[search.scenario]
    lowest, highest = min(finding.counts), max(finding.counts)
    started = " and one for the start" if search.start is None else ""
    runs = (
        f"{finding.runs} runs{started}; a grid of the loads from {lowest:g} to {highest:g}, each "
        f"once but those at the edge, takes {finding.grid_runs}"
    )
    if finding.ending is Ending.BUDGET:
        valid = [load for load, c in finding.counts.items() if c.valid == c.runs]
        invalid = [load for load, c in finding.counts.items() if c.valid < c.runs]
        return [
            f"cannot tell: --max_runs={search.max_runs} is used up. So far the highest load that "
            f"was VALID whenever it was run: {_show(valid, max)}; the lowest that was not: "
            f"{_show(invalid, min)}. The same command with more goes on"
        ]
    if finding.load is None:
        return [
            f"no load was VALID {search.sweep.repetitions} times in a row, down to {lowest:g} "
            f"{unit}. A single query may take longer than the bound",
            runs,
        ]
    assert finding.least_chance is not None
    count = finding.counts[finding.load]
    lines = [f"the largest load that is VALID: {finding.load:g} {unit}"]
    if finding.above is None:
        lines.append(f"  {count} runs; it is the highest that may be tried")
    else:
        lines.append(f"  {count} runs; the next load, {finding.above:g}, was "
                     f"{finding.counts[finding.above]}")  # fmt: skip
    lines.append(
        f"  with {CONFIDENCE:.0%} confidence a run at this load is VALID with a chance of at least "
        f"{finding.least_chance:.0%} (Clopper and Pearson's bound, "
        + (f"shared by the {finding.candidates} loads that came into question; "
           if finding.candidates > 1 else "")
        + "for runs that do not depend on one another). More --repetitions= say more"
    )  # fmt: skip
    lines.append("  assumed: a higher load is never easier to bear")
    lines.append(runs)
    return lines


def describe_repetitions(rates: list[float], what: str) -> list[str]:
    """The median of a rate, and the interval that its runs span, in lines.

    The median of what is measured lies outside the span of n runs where all are above it or all
    below: with the chance 2**(1-n).
    """
    confidence = 1 - 2.0 ** (1 - len(rates))
    return [
        f"{what}: median of {len(rates)} runs {statistics.median(rates):.5g} samples/s; the median "
        f"of all that could be made is between {min(rates):.5g} and {max(rates):.5g} with "
        f"{confidence:.0%} confidence"
    ]


def describe_disturbed(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many of the runs the machine disturbed, where it did: their answers may be another's."""
    kinds = [{found.kind for found in find_disturbances(record)} for record in records]
    disturbed = [of_run for of_run in kinds if of_run]
    if not disturbed:
        return []
    return [
        f"doubtful: {len(disturbed)} of {len(records)} runs were disturbed "
        f"({', '.join(sorted(set().union(*disturbed)))}): a quiet machine may bear another load; "
        "`ck analyze loadgen` says by what"
    ]


def _get_rate(record: Mapping[str, Any]) -> float:
    return float(record["throughput"]["samples_per_second"])


def _describe(record: Mapping[str, Any]) -> str:
    return f"{_get_rate(record):.4g} samples/s, p99 {record['latencies_ns']['p99'] / 1e6:.4g} ms"


def _summarize(values: list[float]) -> str:
    return f"{statistics.median(values):.4g}" if values else "-"


def _show(loads: list[float], choose: Any) -> str:
    return f"{choose(loads):g}" if loads else "none"
