"""What a submission to MLPerf Inference needs, as a schedule: `ck explore loadgen --submission=`.

For each scenario of a type of system: an accuracy run, a performance run of 600 s, and the
compliance tests TEST01 and TEST04, as the official checker asks for (submission/requirements.py).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ck_mlperf.explore.entry import Entry
from ck_mlperf.explore.measure import Measurer
from ck_mlperf.explore.options import SUBMISSION_OPTIONS, read_options
from ck_mlperf.explore.rehearsal import SYSTEM_TYPES, write_rehearsal
from ck_mlperf.explore.runs import ACCURACY, Configuration, Outcome, ScheduledRun
from ck_mlperf.explore.server_rate import find_rate, read_rate, take_low_rate
from ck_mlperf.explore.sweep import Sweep, read_sweep
from ck_mlperf.loadgen.compliance import COMPLIANCE_TESTS
from ck_mlperf.loadgen.settings import COMPLIANCE, RATE, REHEARSAL, raise_problems
from ck_mlperf.submission.requirements import LEAST_DURATION_MS, REQUIRED_SCENARIOS
from ck_mlperf.submission.runs import RecordedRun, ScenarioRuns, find_unofficial
from ck_mlperf.submission.tree import refuse_to_replace, verify_test

SCENARIOS = {kind: REQUIRED_SCENARIOS[name] for kind, name in SYSTEM_TYPES.items()}
"""What is required, by --submission=."""
DURATION_S = LEAST_DURATION_MS // 1000
SAMPLES_PER_QUERY = 8

# Early stopping wants 662 queries in MultiStream and Server, fewer in SingleStream.
_REHEARSAL_S, _REHEARSAL_COUNT = 2, 662
# Server's latency bound in a rehearsal: a busy machine is no reason to fail.
_REHEARSAL_BOUND_MS = 1000
# What a submission sets itself.
_FIXED = ("repetitions", "accuracy", "samples_per_query")


@dataclass(frozen=True)
class Submission(Sweep):
    """A sweep whose runs are those of a submission. It has one network and one batch."""

    kind: str = "edge"
    """The type of the system, of SCENARIOS."""
    inferred: tuple[str, ...] = ()
    """Scenarios that are not run: their results are inferred from SingleStream."""
    rehearsal: bool = False
    measures_rate: bool = False
    """Whether its runs only serve to find the rate for Server."""
    replaced: frozenset[str] = frozenset()
    """Ids of INVALID runs in whose place the next repetition counts."""

    @property
    def tags(self) -> tuple[str, ...]:
        """See `Sweep`."""
        return (*super().tags, "rehearsal" if self.rehearsal else "submission")

    @property
    def prefix(self) -> str:
        """See `Sweep`."""
        return (REHEARSAL if self.rehearsal else "") + (RATE if self.measures_rate else "")

    @property
    def lacks_rate(self) -> bool:
        """Whether Server is to be run, and its rate neither given nor found."""
        return "Server" in self.scenario and not self.qps

    def define(self) -> dict[str, Any]:
        """See `Sweep`. Server's rate may change: runs at another rate are other runs."""
        definition = super().define()
        for key in ("qps", "measures_rate", "replaced", *_FIXED):
            del definition[key]
        return definition

    def _make_configurations(self) -> Iterator[Configuration]:
        for one in super()._make_configurations():
            if one.scenario == "MultiStream":  # the engine never gets more than a query's samples
                batch = min(one.batch, SAMPLES_PER_QUERY)
                one = replace(one, batch=batch, samples_per_query=SAMPLES_PER_QUERY)
            yield one

    def list_runs(self) -> list[ScheduledRun]:
        """All runs, accuracy first: where it is too low, the others need not be waited for."""
        configurations = self.list_configurations()
        return [
            # Server's rate may change; the accuracy does not depend on it.
            *(self.schedule(replace(one, target_qps=None), 1, ACCURACY) for one in configurations),
            *(
                next(run for run in attempts if run.id not in self.replaced)
                for one in configurations
                for attempts in self._list_attempts(one)
            ),
        ]

    def _list_attempts(self, configuration: Configuration) -> Iterator[Iterator[ScheduledRun]]:
        """The repetitions, without end, of the performance run and of each compliance test."""
        for test in (None, *COMPLIANCE_TESTS):
            variables = {COMPLIANCE: test} if test else {}
            if self.rehearsal and configuration.scenario == "Server":
                variables["CK_LOADGEN_TARGET_LATENCY"] = str(_REHEARSAL_BOUND_MS)
            sweep = replace(self, env={**self.env, **variables})
            yield map(sweep.schedule, itertools.repeat(configuration), itertools.count(1))

    def list_notes(self) -> list[str]:
        """See `Sweep`."""
        notes = []
        if self.rehearsal:
            notes.append(f"A REHEARSAL, {self.duration} s a run: no round takes such results")
        if self.inferred:
            notes.append(f"not run, but inferred from SingleStream: {', '.join(self.inferred)}")
        missing = set(SCENARIOS[self.kind]).difference(self.scenario, self.inferred)
        if missing:
            notes.append(f"a submission also needs {', '.join(sorted(missing))}")
        if self.lacks_rate and not self.rehearsal:
            notes.append(
                "Server: the largest rate that is VALID is searched for first, by some 30 runs of "
                "10 s which the estimate leaves out; --qps= gives a rate"
            )
        return [*notes, "the estimate leaves accuracy runs out until the first is done"]

    def remark(self, outcome: Outcome) -> Sequence[str]:
        """Why closed takes no such runs, told after the first one: hours before the last."""
        first = self.list_runs()[0]
        if self.rehearsal or outcome.record is None or outcome.run.id != first.id:
            return ()
        reasons = find_unofficial(outcome.record, "closed")
        if "not met" in [rules.accuracy for rules in outcome.record.verdicts.rules]:
            reasons.append("the accuracy is too low")
        return [f"the closed division will not take this: {reason}" for reason in reasons]

    def take_up(self, entry: Entry, retry_failed: bool) -> Submission:
        """With Server's rate, if it was found, and what replaces INVALID runs.

        retry_failed: whether to replace those for which the entry has no later one.
        """
        rate = read_rate(entry) if self.lacks_rate else None
        submission = self if rate is None else replace(self, qps=(rate,))
        recorded = entry.list_recorded()
        replaced = {
            run.id
            for configuration in submission.list_configurations()
            for attempts in submission._list_attempts(configuration)
            for run, _ in itertools.takewhile(
                lambda pair: pair[1].id in recorded, itertools.pairwise(attempts)
            )
        }
        submission = replace(submission, replaced=frozenset(replaced))
        if retry_failed:
            invalid = submission.find_invalid(entry)
            replaced |= invalid.keys() | submission.find_not_passed(entry).keys()
        return replace(submission, replaced=frozenset(replaced))

    def find_invalid(self, entry: Entry) -> dict[str, list[str]]:
        """Why runs are INVALID, by their ids."""
        verdicts = {
            run.id: record.verdicts.loadgen
            for run in self.list_runs()
            if (record := entry.read_record(run.id))
        }
        return {
            run: ["INVALID", *verdict.reasons, *verdict.advice]
            for run, verdict in verdicts.items()
            if verdict.valid is False
        }

    def find_not_passed(self, entry: Entry) -> dict[str, list[str]]:
        """Why compliance tests are not passed, by their ids and those of their performance runs."""
        reasons: dict[str, list[str]] = {}
        scenarios: dict[str, dict[str, ScheduledRun]] = {}
        for run in self.list_runs():
            scenarios.setdefault(run.configuration.scenario, {})[run.measures] = run
        for runs in scenarios.values():
            recorded = {
                name: RecordedRun(entry.folder, record)
                for name, run in runs.items()
                if (record := entry.read_record(run.id))
            }
            if recorded.keys() != runs.keys() or any(run.is_invalid for run in recorded.values()):
                continue
            performance, accuracy = recorded.pop("performance"), recorded.pop("accuracy")
            for test in recorded:
                verified = verify_test(ScenarioRuns(performance, accuracy, recorded), test)
                if not verified.passed:
                    reasons[runs[test].id] = verified.reasons
                    of_performance = reasons.setdefault(runs["performance"].id, [])
                    of_performance.append(f"{test} compares with it, and is not passed")
        return reasons

    def prepare(self, console: Console, measurer: Measurer) -> None:
        """Find Server's rate, where it is not known."""
        if self.rehearsal:
            refuse_to_replace(self._tree, force=True)  # now, and not when all runs are done
        if self.lacks_rate:
            sweep = replace(self, measures_rate=True)
            if self.rehearsal:
                take_low_rate(sweep, measurer)
            else:
                find_rate(console, sweep, measurer)

    def report(self, console: Console, entry: Entry) -> bool:
        """Print what speaks against runs, or how to go on; of a rehearsal, write the tree."""
        runs, invalid = self.list_runs(), self.find_invalid(entry)
        faults = invalid | self.find_not_passed(entry)
        for run in runs:
            if run.id in faults:
                print(f"{run.description}:", *faults[run.id], sep="\n  ", file=sys.stderr)
        if faults:
            print(f"--retry_failed repeats these runs: {len(faults)}", file=sys.stderr)
        if self.rehearsal:  # in seconds, the figures that tests compare are chance
            faults = invalid
        if faults or any(entry.read_record(run.id) is None for run in runs):
            return False
        if self.rehearsal:
            self._write_tree(console, entry)
        else:
            infer = f" --infer={','.join(self.inferred)}" if self.inferred else ""
            command = "ck submit loadgen --division=closed --submitter=NAME --system=FILE"
            _say(console, f"go on with `{command}{infer} {self.name}`")
        return True

    @property
    def _tree(self) -> Path:
        """Where a rehearsal writes the tree."""
        return Path(self.name).absolute()

    def _write_tree(self, console: Console, entry: Entry) -> None:
        refuse_to_replace(self._tree, force=True)
        complaints = write_rehearsal(
            entry.repository, self.name, self.kind, self.inferred, self._tree
        )
        _say(console, f"The tree of a rehearsal, which no round takes: {self._tree}")
        kinds = dict.fromkeys(complaint.what for complaint in complaints)
        _say(console, f"What the submission checker would say: {'; '.join(kinds)}")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def read_submission(given: Mapping[str, Any]) -> Submission:
    """The submission that options ask for, those of a sweep included. Raises UserError."""
    names = [option.name for option in SUBMISSION_OPTIONS]
    values, problems = read_options(
        {key: value for key, value in given.items() if key in names}, SUBMISSION_OPTIONS
    )
    raise_problems(problems)
    kind, inferred, rehearsal = (values[name] for name in names)
    defaults: dict[str, Any] = {
        "scenario": [name for name in SCENARIOS[kind] if name not in inferred],
        "duration": _REHEARSAL_S if rehearsal else DURATION_S,
    }
    if rehearsal:
        defaults["count"] = _REHEARSAL_COUNT
    rest = {key: value for key, value in given.items() if key not in names}
    problems = [f"{key}: a submission sets it; leave it out" for key in _FIXED if key in given]
    if not rehearsal and "count" in given:
        problems.append("count: a submission has the counts of the rules; leave it out")
    raise_problems(problems)
    sweep = read_sweep({**defaults, **rest, "repetitions": 1})
    submission = Submission(**vars(sweep), kind=kind, inferred=tuple(inferred), rehearsal=rehearsal)
    raise_problems(list(_find_problems(submission)))
    if "name" not in given:
        what = "rehearsal" if rehearsal else "submission"
        name = f"{what}.{sweep.name.removeprefix('explore.')}.{kind}"
        submission = replace(submission, name=name[:100])
    return submission


def _find_problems(submission: Submission) -> Iterator[str]:
    kind, scenarios = submission.kind, submission.scenario
    for name in scenarios:
        if name not in SCENARIOS[kind]:
            yield f"scenario: a submission of type {kind} has no {name}"
        if name in submission.inferred:
            yield f"infer: {name} is in --scenario= as well"
    if submission.inferred and "SingleStream" not in scenarios:
        yield "infer: want SingleStream in --scenario=, from which others are inferred"
    axes = (submission.networks, submission.batch, submission.qps)
    if any(len(axis) > 1 for axis in axes):
        yield "want one model, one batch and one rate at a time"
    if not all(network.has_accuracy for network in submission.networks):
        yield "model: random weights have no accuracy, and a submission needs it"
    duration = submission.duration
    if not submission.rehearsal and duration is not None and float(duration) < DURATION_S:
        yield f"duration: {duration}: want at least {DURATION_S}, or --rehearse"
