"""The recorded runs that a submission is made of: found in experiments, one of each kind."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.compliance import COMPLIANCE_TESTS
from ck_mlperf.loadgen.settings import COMPLIANCE, RATE
from ck_mlperf.results.experiments import find_files, read_records
from ck_mlperf.results.record import Record
from ck_mlperf.results.rules import refuse_closed
from ck_mlperf.submission.requirements import INFERABLE

PERFORMANCE, ACCURACY = "performance", "accuracy"
_KINDS = {"PerformanceOnly": PERFORMANCE, "AccuracyOnly": ACCURACY}
_VARIABLES = {
    PERFORMANCE: "--env.CK_LOADGEN_MODE=PerformanceOnly",
    ACCURACY: "--env.CK_LOADGEN_MODE=AccuracyOnly",
    **{test: f"--env.{COMPLIANCE}={test}" for test in COMPLIANCE_TESTS},
}


class RecordedRun(NamedTuple):
    """A run, and the folder of the experiment entry that has its record and its files."""

    entry: Path
    record: Record

    @property
    def kind(self) -> str | None:
        """PERFORMANCE, ACCURACY, or the compliance test; None: no submission has such a run."""
        if RATE in (self.record.explore_run or ""):
            return None
        return self.record.verdicts.loadgen.compliance or _KINDS.get(self.record.mode)

    @property
    def is_invalid(self) -> bool:
        """Whether LoadGen called it INVALID."""
        return self.record.verdicts.loadgen.valid is False


@dataclass(frozen=True)
class ScenarioRuns:
    """The runs of one scenario."""

    performance: RecordedRun
    accuracy: RecordedRun
    tests: Mapping[str, RecordedRun]
    """By compliance test; empty in open."""

    def list(self) -> list[RecordedRun]:
        return [self.performance, self.accuracy, *self.tests.values()]


def read_recorded_runs(repositories: Iterable[Path], patterns: Sequence[str]) -> list[RecordedRun]:
    """The runs in the experiments of those names that a submission may have, newest first.

    Raises UserError where there is no such experiment, or none of its runs is of such a kind.
    """
    runs = [
        RecordedRun(file.path.parent, record)
        for file in find_files(repositories, patterns)
        if not file.is_failure
        for record in read_records(file.path)
        if record is not None
    ]
    runs = [run for run in runs if run.kind is not None]
    if not runs:
        raise UserError(
            f"{', '.join(patterns)}: no run in PerformanceOnly or AccuracyOnly. `ck explore "
            "loadgen --submission=edge` runs what a submission needs"
        )
    return sorted(runs, key=lambda run: run.record.timing.start, reverse=True)


def choose_runs(runs: Sequence[RecordedRun], division: str) -> dict[str, ScenarioRuns]:
    """By scenario, the newest runs of the same model file, images, engine and settings.

    runs: newest first. Raises UserError that lists what is missing, or says that the runs are of
    several systems.
    """
    refuse_several_systems(runs)
    kinds = [PERFORMANCE, ACCURACY, *(() if division == "open" else COMPLIANCE_TESTS)]
    by_scenario: dict[str, list[RecordedRun]] = defaultdict(list)
    for run in runs:
        by_scenario[run.record.scenario].append(run)
    chosen, problems = {}, []
    for scenario, candidates in sorted(by_scenario.items()):
        sets = _group(candidates)
        best = max(sets, key=lambda found: sum(kind in found for kind in kinds))
        missing = [kind for kind in kinds if kind not in best]
        problems += [_describe_missing(scenario, kind, candidates) for kind in missing]
        if not missing:
            tests = {test: best[test] for test in kinds[2:]}
            chosen[scenario] = ScenarioRuns(best[PERFORMANCE], best[ACCURACY], tests)
    if problems:
        reasons = find_unofficial(runs[0].record, division) if division == "closed" else []
        if reasons:  # said now, not when the rest has run for hours
            listed = "; ".join(reasons)
            problems.append(
                f"and the closed division does not accept the runs that are there: {listed}. "
                "--division=open does"
            )
        raise UserError("runs are missing:\n  " + "\n  ".join(problems))
    return chosen


def find_unofficial(record: Record, division: str) -> list[str]:
    """Why a run is no result by MLPerf's rules of today in the division; empty: it may be one.

    record: of a performance or an accuracy run.
    """
    current = [rules for rules in record.verdicts.rules if rules.status == "current"]
    reasons = [reason for rules in current for reason in rules.unofficial]
    if division == "closed":
        reasons += refuse_closed(record.model)
    return list(dict.fromkeys(reasons))


def refuse_several_systems(runs: Iterable[RecordedRun]) -> None:
    """Raise UserError unless one network ran by one engine on one machine, over the same images."""
    seen: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        seen[describe_subject(run.record)].add(run.entry.name)
    if len(seen) > 1:
        listed = "\n  ".join(
            f"{subject} (in {', '.join(sorted(names))})" for subject, names in seen.items()
        )
        raise UserError(
            f"the runs are of {len(seen)} systems, and a submission is of one. Name the "
            f"experiments of one:\n  {listed}"
        )


def describe_subject(record: Record) -> str:
    """What was measured, on what; not on how many GPUs, for SingleStream has one of them."""
    model, engine, cpu = record.model, record.engine, record.environment.cpu
    device = re.sub(r"\b\d+ x ", "", engine.device)
    weights = " (random weights)" if model.weights == "random" else ""
    return (
        f"{model.name} {describe_precision(record)}{weights} by {engine.name} {engine.version} on "
        f"{device}, {cpu.model or cpu.machine}, {record.dataset.name} "
        f"{record.dataset.images_sha256[:12]}"
    )


def describe_precision(record: Record) -> str:
    """What the model computed in."""
    return record.precision or "precision not noted"


def _group(candidates: Iterable[RecordedRun]) -> list[dict[str, RecordedRun]]:
    """Runs of the same file, images, engine and settings: of each kind the newest that is valid."""
    groups: dict[tuple[Any, ...], dict[str, RecordedRun]] = defaultdict(dict)
    for run in candidates:
        record = run.record
        key = (
            record.model.sha256,
            record.dataset.images_sha256,
            record.engine.batch,
            record.verdicts.loadgen.version,
            record.verdicts.loadgen.interface,
            record.settings.loadgen.get("multi_stream_samples_per_query"),
        )
        found = groups[key]
        if not run.is_invalid:
            found.setdefault(str(run.kind), run)
    return list(groups.values())


def _describe_missing(scenario: str, kind: str, candidates: Iterable[RecordedRun]) -> str:
    of_kind = [run for run in candidates if run.kind == kind]
    invalid = [run for run in of_kind if run.is_invalid]
    if invalid:
        reasons = "; ".join(invalid[0].record.verdicts.loadgen.reasons) or "see its report"
        return f"{scenario}, {kind}: LoadGen called the newest run INVALID: {reasons}"
    others = " of the same model file, images, batch and LoadGen" if of_kind else ""
    return (
        f"{scenario}, {kind}: no run{others}. Record one with "
        f"--env.CK_LOADGEN_SCENARIO={scenario} {_VARIABLES[kind]}"
    )


def infer_scenarios(scenarios: dict[str, ScenarioRuns], names: Iterable[str]) -> None:
    """Add scenarios whose results are inferred from SingleStream's run, as an edge system may.

    Raises UserError for a scenario that cannot be inferred, or was run.
    """
    for name in names:
        if ("singlestream", name.lower()) not in INFERABLE:
            raise UserError(f"--infer={name}: want MultiStream, Offline or both")
        if name in scenarios:
            raise UserError(f"--infer={name}: the experiments have a run of it; leave it out")
        if "SingleStream" not in scenarios:
            raise UserError(f"--infer={name}: it is inferred from SingleStream, which was not run")
        scenarios[name] = scenarios["SingleStream"]
