"""`ck compare loadgen`: is one set of runs faster than another, or can that not be told?"""

from __future__ import annotations

import argparse
import json

from ck_mlperf.commands.parser import Parser, add_repository, list_repositories
from ck_mlperf.common.errors import UserError

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
            '"before.*" "after.*"',
            "explore.digits explore.int8 --json",
        ],
        usage="A B [--OPTION=VALUE ...]",
    )
    parser.add_argument("a", metavar="A", help="what B is compared with")
    parser.add_argument("b", metavar="B", help="what is called faster or slower")
    add_repository(parser)
    parser.add_flag("--json", "print JSON")
    return parser


def list_libraries(arguments: argparse.Namespace) -> list[str]:
    return ["msgspec", "numpy", "rich"]


def main(arguments: argparse.Namespace) -> int:
    """Say for each pair of points whether B is faster, slower, or cannot be told from A."""
    from ck_mlperf.analyze.compare import compare_points, describe_comparison
    from ck_mlperf.analyze.rows import read_runs
    from ck_mlperf.analyze.runs import group_points

    sides = []
    for pattern in (arguments.a, arguments.b):
        points = group_points(read_runs(list_repositories(arguments), [pattern]))
        if not points:
            raise UserError(f"{pattern}: no run in it measured a speed")
        sides.append(points)
    comparison = compare_points(*sides)
    if arguments.json:
        print(json.dumps(describe_comparison(comparison), indent=2))
    else:
        from rich.console import Console

        from ck_mlperf.analyze.show_comparison import show_comparison

        show_comparison(comparison, arguments.a, arguments.b, Console(highlight=False))
    return 0
