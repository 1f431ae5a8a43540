"""`ck analyze loadgen`: recorded runs as one table."""

from __future__ import annotations

import argparse
from pathlib import Path

from ck_mlperf.commands.parser import Parser, add_experiments, list_repositories

SUMMARY = "show, export or query the recorded runs as one table"

_DESCRIPTION = """\
Show the recorded runs as one table, export them (--out_file) or query them
(--query). Without either, print a line per configuration, with what makes it doubtful."""


def make_parser() -> Parser:
    parser = Parser(
        _DESCRIPTION,
        [
            "explore.digits",
            '--query="SELECT batch, n, round(samples_per_second) AS rate FROM points"',
            '"explore.*" --out_file=runs.parquet',
        ],
        usage="[EXPERIMENT ...] [--OPTION=VALUE ...]",
    )
    add_experiments(parser)
    parser.add_argument(
        "--query",
        metavar="SELECT",
        help="SQL (DuckDB's) over runs, a row each, and points, a row per configuration "
        "(default: none)",
    )
    parser.add_argument(
        "--out_file",
        type=Path,
        metavar="FILE",
        help="write the runs, or what the query gives, to a .csv or .parquet file; or all of it "
        "to a .duckdb file (default: print)",
    )
    parser.add_flag("--runs", "show a line for each run of a point, too")
    return parser


def list_libraries(arguments: argparse.Namespace) -> list[str]:
    return ["duckdb", "msgspec", "numpy", "rich"]


def main(arguments: argparse.Namespace) -> int:
    """Show, export or query the runs."""
    from rich.console import Console

    from ck_mlperf.analyze import table
    from ck_mlperf.analyze.rows import read_runs
    from ck_mlperf.analyze.show import show_answer, show_points

    console = Console(highlight=False)
    runs = read_runs(list_repositories(arguments), arguments.patterns)
    if arguments.out_file is not None:
        table.export(runs, arguments.out_file, arguments.query)
        what = f"{len(runs)} runs" if arguments.query is None else "what the query gives"
        print(f"{arguments.out_file}: {what}")
    elif arguments.query is not None:
        show_answer(*table.query(runs, arguments.query), console)
    else:
        show_points(runs, console, arguments.runs)
    return 0
