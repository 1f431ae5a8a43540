"""`ck-mlperf run`: one LoadGen test, as a job file says."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from ck_mlperf.commands.parser import Parser
from ck_mlperf.loadgen.job import PROGRAM
from ck_mlperf.loadgen.settings import list_help

SUMMARY = "run one LoadGen test as a job file says, without CK"

_DESCRIPTION = """\
Run one LoadGen test as a job file says: the job that `ck run` left in the program's tmp folder, or
one written by hand (examples/README.md). Leaves record.json, report.txt and LoadGen's logs in the
current folder; after an error, none of these."""


def make_parser() -> Parser:
    settings = "\n".join(
        f"  {name}\n{textwrap.indent(textwrap.fill(text, 90), ' ' * 6)}"
        for name, text in list_help()
    )
    parser = Parser(
        _DESCRIPTION,
        ["job.json", "../examples/job.json", f"program/{PROGRAM}/tmp/job.json"],
        usage="JOB",
        notes=f"settings of a job:\n{settings}",
    )
    parser.add_argument("job", type=Path, metavar="JOB", help="the JSON file")
    return parser


def main(arguments: argparse.Namespace) -> int:
    """Run the job. Ends the process."""
    from ck_mlperf.results.job_run import run_program

    run_program(arguments.job, PROGRAM)
