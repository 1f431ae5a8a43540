"""--fail_on: the conditions on which a command ends with 1, for CI.

Parsers import this module: at its top, the standard library alone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ck_mlperf.analyze.runs import Run
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.printable import make_printable

if TYPE_CHECKING:
    from ck_mlperf.analyze.compare import Interval

_SLOWER = re.compile(r"slower(?::(\d{1,2}(?:\.\d+)?)%)?")
_ROUNDING = 1e-12


class FailOn(NamedTuple):
    """Conditions, of which one is enough."""

    slower: float | None = None
    """The least share by which speed must have fallen, outside the noise; None: not asked."""
    invalid: bool = False
    """Whether a run that failed, or that LoadGen calls INVALID, is one."""


class Outcome(NamedTuple):
    """What has become of the conditions."""

    met: list[str]
    """A sentence for each thing that met one."""
    problem: str | None = None
    """Why a condition could not be judged."""


def read_fail_on(text: str) -> FailOn:
    """What `slower:5%,invalid` says. Raises ValueError."""
    slower, invalid = None, False
    for word in text.split(","):
        match = _SLOWER.fullmatch(word)
        if match:
            slower = float(match[1] or 0) / 100
        elif word == "invalid":
            invalid = True
        else:
            raise ValueError(f"want slower, slower:5% or invalid, joined with commas, not {word!r}")
    return FailOn(slower, invalid)


def name_configuration(configuration: Mapping[str, Any]) -> str:
    """A configuration in a few words, for a sentence."""
    words = [f"{configuration['model']} {configuration['precision']} on {configuration['engine']}"]
    words.append(configuration["scenario"])
    if configuration["target_qps"] is not None:
        words.append(f"{configuration['target_qps']:g} queries/s")
    elif configuration["samples_per_query"] is not None:
        words.append(f"{configuration['samples_per_query']} samples a query")
    return ", ".join([*words, f"batch {configuration['batch']}"])


def find_slower(compared: Iterable[tuple[str, Interval | None]], share: float) -> Outcome:
    """compared: what it is, and how many times as fast it has become; None: too few runs.

    Slower is what is so outside the noise, and at most 1 - share times as fast.
    """
    met, undecided, count = [], [], 0
    for name, interval in compared:
        count += 1
        if interval is None:
            undecided.append(name)
        elif interval.verdict == "slower" and interval.ratio <= 1 - share + _ROUNDING:
            met.append(
                f"slower: {name}: {interval.ratio:.3f} times as fast "
                f"({interval.low:.3f}-{interval.high:.3f})"
            )
    if len(undecided) < count:
        for name in undecided:
            print(make_printable(f"cannot tell, too few runs: {name}"), file=sys.stderr)
        return Outcome(met)
    return Outcome(
        met,
        "--fail_on=slower: nothing can be told: "
        + (f"too few runs of each of {count}" if count else "there is nothing to compare with")
        + "; a comparison needs at least 3 runs of the same configuration on each side",
    )


def find_invalid(runs: Iterable[Run]) -> Outcome:
    """The runs that failed, or that LoadGen calls INVALID."""
    met, count = [], 0
    for run in runs:
        count += 1
        if run.error is not None:
            reason = (run.error.strip().splitlines() or ["no message"])[-1]
            met.append(f"failed: {run.label}: {run.scenario}: {reason}")
        elif run.loadgen_valid is False:
            name = name_configuration(vars(run))
            met.append(f"INVALID: {run.label}: {name}: {run.invalid_reason or 'no reason given'}")
    return Outcome(met, None if count else "--fail_on=invalid: there are no runs to judge")


def join_outcomes(outcomes: Iterable[Outcome]) -> Outcome:
    """All that was met, and the first problem."""
    listed = list(outcomes)
    problems = (outcome.problem for outcome in listed if outcome.problem)
    return Outcome([text for outcome in listed for text in outcome.met], next(problems, None))


def conclude(outcome: Outcome) -> int:
    """The exit code: 1 where a condition is met, which stderr explains, else 0.

    Raises UserError where none is met and one could not be judged: a job must not pass by that.
    """
    for text in outcome.met:
        print(make_printable(text), file=sys.stderr)
    if not outcome.met and outcome.problem:
        raise UserError(outcome.problem)
    return 1 if outcome.met else 0
