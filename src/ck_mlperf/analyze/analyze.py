"""`ck analyze loadgen`: recorded runs as one table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ck_mlperf.analyze.experiments import read_runs
from ck_mlperf.analyze.options import add_source_options

_DESCRIPTION = """The recorded runs as one table: shown, exported (--out_file) or queried (--query).
Without either, a line per configuration, with what makes it doubtful."""


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "analyze", prog="ck analyze loadgen", description=_DESCRIPTION, allow_abbrev=False
    )
    add_source_options(parser)
    parser.add_argument(
        "--query",
        metavar="SELECT",
        help="SQL (DuckDB's) over runs, a row each, and points, a row per configuration",
    )
    parser.add_argument(
        "--out_file",
        type=Path,
        metavar="FILE",
        help="write the runs, or what the query gives, to a .csv or .parquet file; or all of it "
        "to a .duckdb file",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show, export or query the runs."""
    from rich.console import Console

    from ck_mlperf.analyze import table
    from ck_mlperf.analyze.show import show_answer, show_points

    console = Console(highlight=False)
    runs = read_runs(arguments.repository, arguments.patterns)
    if arguments.out_file is not None:
        table.export(runs, arguments.out_file, arguments.query)
        what = f"{len(runs)} runs" if arguments.query is None else "what the query gives"
        print(f"{arguments.out_file}: {what}")
    elif arguments.query is not None:
        show_answer(*table.query(runs, arguments.query), console)
    else:
        show_points(runs, console)
    return 0
