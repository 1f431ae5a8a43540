"""`ck explore loadgen`: a sweep of recorded benchmarks, or a search for the largest load."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from functools import partial

from ck_mlperf.commands.parser import Parser, find_local_repository
from ck_mlperf.common.errors import UserError
from ck_mlperf.explore.options import (
    CLUSTER_OPTIONS,
    ENVIRONMENT_OPTION,
    FILE_OPTION,
    SEARCH_OPTIONS,
    SUBMISSION_OPTIONS,
    Option,
)
from ck_mlperf.explore.sweep import SWEEP_OPTIONS

SUMMARY = "run a sweep of recorded benchmarks, or search for the largest load that is VALID"

_DESCRIPTION = """\
Run a sweep: each combination of the values is a recorded benchmark, repeated. With --find=max,
search for the largest load that is VALID. The same command continues what was stopped."""


def make_parser() -> Parser:
    # What is not given is not handed over: the sweep has its defaults, and a file may have values.
    parser = Parser(
        _DESCRIPTION,
        [
            "--scenario=MultiStream,Offline --batch=1,2,4..64",
            "--engine=tensorrt --model=resnet --precision=fp16,int8 --scenario=Offline",
            "--find=max --scenario=Server --duration=10",
        ],
        argument_default=argparse.SUPPRESS,
    )
    for title, options in (
        ("what is run", (*SWEEP_OPTIONS, ENVIRONMENT_OPTION, FILE_OPTION)),
        ("a search", SEARCH_OPTIONS),
        ("a submission", SUBMISSION_OPTIONS),
        ("where it runs", CLUSTER_OPTIONS),
    ):
        group = parser.add_argument_group(title)
        for option in options:
            group.add_argument(
                f"--{option.name}",
                action="append" if option is ENVIRONMENT_OPTION else "store",
                nargs=None if option.metavar else "?",  # a flag
                metavar=option.metavar,
                help=option.full_help.replace("%", "%%"),
            )
    parser.add_flag("--dry_run", "print the commands of the runs, run nothing")
    parser.add_flag("--retry_failed", "run again what failed before")
    return parser


def list_libraries(arguments: argparse.Namespace) -> list[str]:
    libraries = ["msgspec", "numpy", "pyyaml", "rich"]
    cluster = getattr(arguments, "cluster", "")
    if cluster:
        libraries.append("distributed")
    if cluster == "slurm":
        libraries.append("dask-jobqueue")
    if cluster.startswith("ssh:"):
        libraries.append("asyncssh")
    return libraries


def main(arguments: argparse.Namespace) -> int:
    """Run the sweep or the search. Returns 1 where a run failed or no load was found."""
    from ck_mlperf.explore.session import explore, hear_signals, open_executor

    hear_signals()
    options = _take(arguments, (*SWEEP_OPTIONS, FILE_OPTION, *SEARCH_OPTIONS, *SUBMISSION_OPTIONS))
    for pair in getattr(arguments, ENVIRONMENT_OPTION.name, []):
        variable, _, value = pair.partition("=")
        options[f"env.{variable}"] = value
    cluster = _take(arguments, CLUSTER_OPTIONS)
    if cluster and "submission" in options:
        raise UserError("cluster: a submission is of one system; start the command there")
    return explore(
        options,
        find_local_repository(),
        partial(open_executor, options=cluster),
        arguments.dry_run,
        arguments.retry_failed,
    )


def _take(arguments: argparse.Namespace, options: Iterable[Option]) -> dict[str, str]:
    """Those of the options that were given."""
    given = vars(arguments)
    return {option.name: given[option.name] for option in options if option.name in given}
