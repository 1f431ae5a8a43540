"""`ck analyze loadgen`: recorded runs as one table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ck_mlperf.commands.parser import Parser, add_experiments, add_fail_on, list_repositories
from ck_mlperf.common.errors import UserError

if TYPE_CHECKING:
    from ck_mlperf.analyze.conditions import FailOn, Outcome
    from ck_mlperf.analyze.history import Series
    from ck_mlperf.analyze.runs import Run

SUMMARY = "show, export or query the recorded runs as one table"

_DESCRIPTION = """\
Show the recorded runs as one table, export them (--out_file) or query them
(--query). Without either, print a line per configuration, with what makes it doubtful; with
--history, what has become of each configuration over commits and dates."""


def make_parser() -> Parser:
    parser = Parser(
        _DESCRIPTION,
        [
            '--query="SELECT batch, n, round(samples_per_second) AS rate FROM points"',
            '"explore.*" --out_file=runs.parquet',
            "nightly --history --fail_on=slower:5%,invalid",
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
    parser.add_flag("--history", "compare each configuration with itself at the commit before")
    parser.add_flag("--json", "print JSON (docs/ci.md)")
    add_fail_on(
        parser,
        "with --history, the newest commit is slower than the one before it outside the noise, by "
        "at least that share; a run is INVALID or failed",
    )
    return parser


def list_libraries(arguments: argparse.Namespace) -> list[str]:
    needs_table = arguments.query is not None or arguments.out_file is not None
    return [*(["duckdb"] if needs_table else []), "msgspec", "numpy", "rich"]


def main(arguments: argparse.Namespace) -> int:
    """Show, export or query the runs. Returns 1 where a condition of --fail_on is met."""
    from ck_mlperf.analyze.conditions import conclude
    from ck_mlperf.analyze.history import trace_history
    from ck_mlperf.analyze.rows import read_experiments

    _refuse_contradictions(arguments)
    runs, passed_over, _ = read_experiments(list_repositories(arguments), arguments.patterns)
    series = trace_history(runs) if arguments.history else None
    outcome = _judge(runs, series, arguments.fail_on)
    if arguments.out_file is not None:
        _export(runs, arguments.out_file, arguments.query)
    elif arguments.json:
        _print_json(runs, passed_over, series, arguments.query, outcome.met)
    else:
        _show(runs, series, arguments)
    return conclude(outcome)


def _refuse_contradictions(arguments: argparse.Namespace) -> None:
    if arguments.out_file is not None and arguments.json:
        raise UserError("--json prints: leave out --out_file, or write > FILE after the command")
    if arguments.history and (arguments.query is not None or arguments.out_file is not None):
        raise UserError("--history has no --query and no --out_file; it has --json")
    if arguments.fail_on.slower is not None and not arguments.history:
        raise UserError("--fail_on=slower: than what? Give --history, or use `compare A B`")


def _judge(runs: Sequence[Run], series: Sequence[Series] | None, fail_on: FailOn) -> Outcome:
    from ck_mlperf.analyze.conditions import (
        find_invalid,
        find_slower,
        join_outcomes,
        name_configuration,
    )
    from ck_mlperf.analyze.history import find_newest, list_newest_runs

    def judge_each() -> Iterator[Outcome]:
        if fail_on.slower is not None and series is not None:
            compared = (
                (name_configuration(one.configuration), one.entries[-1].interval)
                for one in find_newest(series)
                if len(one.entries) > 1
            )
            yield find_slower(compared, fail_on.slower)
        if fail_on.invalid:
            yield find_invalid(runs if series is None else list_newest_runs(series, runs))

    return join_outcomes(judge_each())


def _export(runs: Sequence[Run], path: Path, query: str | None) -> None:
    from ck_mlperf.analyze import table

    table.export(runs, path, query)
    what = f"{len(runs)} runs" if query is None else "what the query gives"
    print(f"{path}: {what}")


def _print_json(
    runs: Sequence[Run],
    passed_over: Sequence[str],
    series: Sequence[Series] | None,
    query: str | None,
    met: Sequence[str],
) -> None:
    from ck_mlperf.analyze.as_json import describe_answer, describe_runs, print_json
    from ck_mlperf.analyze.history import describe_series

    if query is not None:
        from ck_mlperf.analyze import table

        print_json("answer", {**describe_answer(*table.query(runs, query)), "fail_on_met": met})
    elif series is not None:
        described = [describe_series(one) for one in series]
        print_json("history", {"series": described, "fail_on_met": met})
    else:
        print_json("analysis", {**describe_runs(runs, passed_over), "fail_on_met": met})


def _show(
    runs: Sequence[Run], series: Sequence[Series] | None, arguments: argparse.Namespace
) -> None:
    from rich.console import Console

    from ck_mlperf.analyze.show import show_answer, show_points
    from ck_mlperf.analyze.show_history import show_history

    console = Console(highlight=False)
    if arguments.query is not None:
        from ck_mlperf.analyze import table

        show_answer(*table.query(runs, arguments.query), console)
    elif series is not None:
        show_history(series, console)
    else:
        show_points(runs, console, arguments.runs)
