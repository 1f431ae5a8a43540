"""`ck explore loadgen`: a sweep of recorded benchmarks, or a search for the largest load."""

from __future__ import annotations

import argparse
from functools import partial

from ck_mlperf.commands.parser import Parser, find_local_repository

SUMMARY = "run a sweep of recorded benchmarks, or search for the largest load that is VALID"

_DESCRIPTION = """\
Run a sweep: each combination of the values is a recorded benchmark, repeated. With --find=max,
search for the largest load that is VALID. The same command continues what was stopped."""

_SWEEP = {
    "scenario": (
        "NAME,...",
        "SingleStream, MultiStream, Server, Offline (default: SingleStream)",
    ),
    "batch": (
        "N,...",
        "the most samples that the engine gets at once: 1,2,3 or 1..8 or 8..32:8 or 1..64:x2 or "
        "1,2,4..64 (default: 32, in SingleStream 1)",
    ),
    "samples_per_query": ("N,...", "MultiStream only (default: the batch)"),
    "qps": (
        "RATE,...",
        "queries per second that are sent, Server only (default: half of what is measured before "
        "the test)",
    ),
    "model": (
        "TAGS,...",
        "tags of models, several of one model joined with +: digits,resnet50+random "
        "(default: digits)",
    ),
    "precision": ("NAME,...", "fp32, tf32, fp16, int8 (default: as the model's file is)"),
    "engine": ("NAME,...", "onnx, onnx-cuda, tensorrt (default: onnx)"),
    "weights": (
        "TAG,...",
        "all tags of the model to run, in place of --model, --precision and --engine "
        "(default: by these)",
    ),
    "repetitions": (
        "N",
        "performance runs of each point; in a search, how often a load is VALID before it is the "
        "answer (default: 3; a search in SingleStream: 6)",
    ),
    "accuracy": (
        "yes|no",
        "whether each file that is run has its accuracy measured, once (default: yes)",
    ),
    "count": ("N", "CK_LOADGEN_COUNT_OVERRIDE of performance runs (default: none)"),
    "duration": ("SECONDS", "CK_LOADGEN_DURATION of performance runs (default: user.conf's, 10)"),
    "env.NAME": ("VALUE", "any other variable of `ck run`, for all runs: --env.CK_VERBOSE=yes"),
    "program": (
        "NAME",
        "the CK program (default: image-classification-tensorrt-loadgen-py)",
    ),
    "name": ("NAME", "of the experiment (default: explore.MODEL, or find.MODEL.SCENARIO)"),
    "file": (
        "FILE.yaml",
        "read these options, without the dashes, from a file; the command line takes precedence "
        "(default: none)",
    ),
}
_SEARCH = {
    "find": (
        "max",
        "search for the largest load that is VALID: the rate of Server, the samples per query of "
        "MultiStream, the batch of Offline (default: a sweep)",
    ),
    "rules": (
        "SET",
        "who judges: loadgen, or a set of rules.json (default: loadgen, in MultiStream v0.5)",
    ),
    "resolution": (
        "SHARE",
        "the smallest step, as a share of the load (default: 0.02 in Server, else whole numbers)",
    ),
    "limit": ("N", "the highest whole number to try (default: 4096)"),
    "start": (
        "LOAD",
        "the load to begin with (default: Server half of what is measured, MultiStream 8, "
        "Offline --limit)",
    ),
    "max_runs": ("N", "the most runs (default: 60)"),
}
_CLUSTER = {
    "cluster": (
        "WHERE",
        "spread the runs over Dask's workers: tcp://HOST:PORT, slurm or ssh:FILE "
        "(default: this machine)",
    ),
    "jobs": ("N", "Slurm jobs, a worker each (default: 1)"),
    "remote_python": ("PATH", "the interpreter on the hosts of ssh: (default: this one's path)"),
}


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
        ("what is run", _SWEEP),
        ("a search", _SEARCH),
        ("where it runs", _CLUSTER),
    ):
        group = parser.add_argument_group(title)
        for name, (metavar, help) in options.items():
            action = "append" if name == "env.NAME" else "store"
            group.add_argument(f"--{name}", action=action, metavar=metavar, help=help)
    parser.add_flag("--dry_run", "print the commands of the runs, run nothing")
    parser.add_flag("--retry_failed", "run again what failed before")
    return parser


def list_libraries(arguments: argparse.Namespace) -> list[str]:
    libraries = ["numpy", "pyyaml", "rich"]
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
    given = vars(arguments)
    options = {name: given[name] for name in (*_SWEEP, *_SEARCH) if name in given}
    for pair in options.pop("env.NAME", []):
        variable, _, value = pair.partition("=")
        options[f"env.{variable}"] = value
    cluster = {name: given[name] for name in _CLUSTER if name in given}
    return explore(
        options,
        find_local_repository(),
        partial(open_executor, options=cluster),
        arguments.dry_run,
        arguments.retry_failed,
    )
