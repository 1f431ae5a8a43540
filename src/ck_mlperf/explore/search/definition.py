"""What a load search looks for, and under which rules: `ck explore loadgen --find=max`.

The load is the scenario's: Server's queries per second, MultiStream's samples per query, Offline's
batch (LoadGen drives it at the highest rate there is). SingleStream has no load that could be
raised: it is measured repeatedly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.explore.options import (
    LOADGEN,
    SEARCH_OPTIONS,
    merge_file,
    read_options,
)
from ck_mlperf.explore.runs import Configuration
from ck_mlperf.explore.schedule import DEFAULT_DURATION_S
from ck_mlperf.explore.sweep import Sweep, read_sweep
from ck_mlperf.loadgen.settings import DEFAULT_BATCH_SIZE, raise_problems
from ck_mlperf.results.record import Record
from ck_mlperf.results.rules import list_checks, load_rules
from ck_mlperf.results.verdicts import Check

LOADS = {
    "Server": "queries/s",
    "MultiStream": "samples per query",
    "Offline": "samples at once (batch)",
}
"""The load of each scenario that has one, in words."""

# What a load can change. The other checks (duration, counts, images) do not depend on it.
_VALID = "loadgen_valid"
_OF_LOAD = (_VALID, "loadgen_errors")
_EARLY = "early stopping:"
_LATENCIES = ("p90_ms", "p99_ms", "early_stopped_p90_ms", "early_stopped_p99_ms")
# Fewer queries are never VALID in Server, whatever the load (rules.json: early stopping, 99%).
_LEAST_QUERIES = 662
_SERVER_RESOLUTION = 0.02
_SAMPLES_PER_QUERY = 8
_SINGLE_STREAM_RUNS = 6


@dataclass(frozen=True)
class Rules:
    """How a probe is judged."""

    id: str
    """loadgen: LoadGen's verdict; else the id of a set in ck_mlperf/results/rules.json."""
    metrics: tuple[str, ...]
    """Of the set's checks, those that a load can change."""
    description: str

    def is_met(self, record: Record) -> bool:
        """Whether the run is VALID under these rules."""
        if self.id == LOADGEN:
            return bool(record.verdicts.loadgen.valid)
        return not self._list_broken(record)

    def explain(self, record: Record) -> str:
        """Why a run is not VALID under these rules."""
        others = [check for check in self._list_broken(record) if check.metric != _VALID]
        if others:
            return "; ".join(
                f"{check.name} {check.measured:.4g} {check.unit}, over {check.required:g}"
                for check in others
            )
        loadgen = record.verdicts.loadgen
        if loadgen.not_met == ["early stopping"] and record.counts is not None:
            return f"{record.counts.queries} queries are too few for the share that was late"
        errors = [error.text for error in loadgen.errors]
        # What early stopping says is long, and follows from the latency.
        reasons = [text for text in loadgen.reasons if not text.startswith(_EARLY)]
        return "; ".join([*(reasons or loadgen.reasons), *errors])

    def count_needed_queries(self, record: Record) -> int | None:
        """How many queries a run should have, if all that it lacks is queries."""
        broken = {check.metric for check in self._list_broken(record)}
        if self.is_met(record) or broken - {_VALID}:
            return None
        return record.verdicts.loadgen.needed_queries

    def _list_broken(self, record: Record) -> list[Check]:
        """The checks that failed; LoadGen's own verdict has none."""
        if self.id == LOADGEN:
            return []
        for verdict in record.verdicts.rules:
            if verdict.id == self.id:
                return [c for c in verdict.checks if c.metric in self.metrics and not c.ok]
        raise UserError(
            f"rules: an older version recorded the probes of this experiment, without {self.id}. "
            "Take another --name="
        )


def read_rules(rules: str, scenario: str) -> Rules:
    """The rules of that name. Raises UserError where they do not limit a load."""
    if rules == LOADGEN:
        if scenario == "MultiStream":
            raise UserError(
                "rules: LoadGen has no latency bound in MultiStream, so that every load is VALID. "
                "Want --rules=v0.5"
            )
        return Rules(LOADGEN, (), "LoadGen's verdict")
    table = load_rules()
    sets = {rule_set["id"]: rule_set for rule_set in table["rule_sets"]}
    if rules not in sets:
        raise UserError(f"rules: '{rules[:50]}': want {LOADGEN} or one of {', '.join(sets)}")
    checks = [
        check
        for check in list_checks(table, sets[rules], scenario)
        if check["metric"] in _OF_LOAD or check["metric"] in _LATENCIES
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
    """What to look for, and how."""

    sweep: Sweep
    """One network and one scenario, with the settings of all probes; its repetitions are those at
    the edge."""
    rules: Rules
    resolution: float
    """The smallest step, as a share of the load; 0: whole numbers."""
    limit: int
    """The highest whole number that is probed."""
    start: float | None
    """The first load; None, in Server: half of what the engine does before a test."""
    max_runs: int

    @property
    def scenario(self) -> str:
        """The scenario."""
        return self.sweep.scenario[0]

    @property
    def load_name(self) -> str:
        """The scenario's load in words."""
        return LOADS[self.scenario]

    def define(self) -> dict[str, Any]:
        """What makes the probes different ones where it differs: rules and repetitions do not."""
        definition = self.sweep.define()
        for key in ("repetitions", "accuracy"):
            del definition[key]
        return {"find": "max", **definition}

    def configure(self, load: float | None) -> Configuration:
        """The configuration with a load; None: the one that measures the start."""
        (network,) = self.sweep.networks
        (batch,) = self.sweep.batch or (None,)
        if self.scenario == "Server":
            return Configuration(network, "Server", batch or DEFAULT_BATCH_SIZE, target_qps=load)
        if load is None:
            return Configuration(network, self.scenario, 1)
        if self.scenario == "Offline":
            return Configuration(network, "Offline", int(load))
        return Configuration(
            network, "MultiStream", batch or int(load), samples_per_query=int(load)
        )


def read_search(given: Mapping[str, Any]) -> Search:
    """The search that options ask for, those of a sweep included. Raises UserError."""
    given = merge_file(given)
    names = [option.name for option in SEARCH_OPTIONS]
    own = {key: value for key, value in given.items() if key in names}
    values, problems = read_options(own, SEARCH_OPTIONS)
    raise_problems(problems)
    sweep = read_sweep({key: value for key, value in given.items() if key not in own})
    scenario = sweep.scenario[0]
    if len(sweep.scenario) * len(sweep.networks) * max(1, len(sweep.batch)) > 1:
        raise UserError("find: want one scenario, one network and one batch at a time")
    if sweep.qps or sweep.samples_per_query or (sweep.batch and scenario == "Offline"):
        raise UserError(f"find: leave out what is searched: {LOADS[scenario]}")
    if "repetitions" not in given and scenario == "SingleStream":
        sweep = replace(sweep, repetitions=_SINGLE_STREAM_RUNS)
    if sweep.repetitions < 2:
        raise UserError("repetitions: want at least 2: one VALID at the edge is chance")
    if "name" not in given:
        kind = f"{sweep.name.removeprefix('explore.')}.{scenario.lower()}"
        sweep = replace(sweep, name=f"find.{kind}"[:100])
    if scenario == "Server" and sweep.count is None:
        # A count alone would end the test with its last query.
        sweep = replace(
            sweep,
            count=str(_LEAST_QUERIES),
            duration=sweep.duration or f"{DEFAULT_DURATION_S:g}",
        )
    # In Offline only memory and the model's own limit stand against the highest load.
    starts = {"Offline": values["limit"], "MultiStream": _SAMPLES_PER_QUERY}
    return Search(
        sweep,
        read_rules(values["rules"] or ("v0.5" if scenario == "MultiStream" else LOADGEN), scenario),
        values["resolution"] or (_SERVER_RESOLUTION if scenario == "Server" else 0),
        values["limit"],
        starts.get(scenario) if values["start"] is None else values["start"],
        values["max_runs"],
    )
