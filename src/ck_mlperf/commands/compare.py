"""`ck compare loadgen`: is one set of runs faster than another, or can that not be told?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ck_mlperf.commands.parser import Parser, add_fail_on, add_repository, list_repositories
from ck_mlperf.common.errors import UserError

if TYPE_CHECKING:
    from ck_mlperf.analyze.compare import Comparison
    from ck_mlperf.analyze.conditions import FailOn, Outcome
    from ck_mlperf.analyze.runs import Run

SUMMARY = "compare two sets of recorded runs: faster, slower or cannot tell"

_DESCRIPTION = """\
Is B faster than A? Each is an experiment's name, or a pattern with * and ?.
Points of the same load are compared by the throughput in Offline, else by the latency that MLPerf
looks at, with a 95% interval of how many times as fast B is."""


def make_parser() -> Parser:
    parser = Parser(
        _DESCRIPTION,
        [
            "explore.digits explore.int8",
            '"before.*" "after.*" --fail_on=slower:5%,invalid',
            "explore.digits explore.int8 --json",
        ],
        usage="A B [--OPTION=VALUE ...]",
    )
    parser.add_argument("a", metavar="A", help="what B is compared with")
    parser.add_argument("b", metavar="B", help="what is called faster or slower")
    add_repository(parser)
    parser.add_flag("--json", "print JSON (docs/ci.md)")
    add_fail_on(parser, "B is slower outside the noise, by at least that share; a run of B INVALID")
    return parser


def list_libraries(arguments: argparse.Namespace) -> list[str]:
    return ["msgspec", "numpy", "rich"]


def main(arguments: argparse.Namespace) -> int:
    """Say for each pair of points whether B is faster, slower, or cannot be told from A.

    Returns 1 where a condition of --fail_on is met.
    """
    from ck_mlperf.analyze.compare import compare_points, describe_comparison
    from ck_mlperf.analyze.conditions import conclude
    from ck_mlperf.analyze.rows import read_runs
    from ck_mlperf.analyze.runs import group_points

    sides, runs = [], []
    for pattern in (arguments.a, arguments.b):
        runs = read_runs(list_repositories(arguments), [pattern])
        points = group_points(runs)
        if not points:
            raise UserError(f"{pattern}: no run in it measured a speed")
        sides.append(points)
    comparison = compare_points(*sides)
    outcome = _judge(comparison, runs, arguments.fail_on)
    if arguments.json:
        from ck_mlperf.analyze.as_json import print_json

        print_json("comparison", {**describe_comparison(comparison), "fail_on_met": outcome.met})
    else:
        from rich.console import Console

        from ck_mlperf.analyze.show_comparison import show_comparison

        show_comparison(comparison, arguments.a, arguments.b, Console(highlight=False))
    return conclude(outcome)


def _judge(comparison: Comparison, runs: Sequence[Run], fail_on: FailOn) -> Outcome:
    """runs: of B."""
    from ck_mlperf.analyze.conditions import (
        find_invalid,
        find_slower,
        join_outcomes,
        name_configuration,
    )

    def judge_each() -> Iterator[Outcome]:
        if fail_on.slower is not None:
            compared = (
                (name_configuration(pair.b.configuration), pair.interval)
                for pair in comparison.pairs
            )
            yield find_slower(compared, fail_on.slower)
        if fail_on.invalid:
            yield find_invalid(runs)

    return join_outcomes(judge_each())
