"""`ck submit loadgen`: the tree of an MLPerf submission from recorded runs, and its check."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ck_mlperf.commands.parser import Parser, add_repository, list_repositories
from ck_mlperf.common.errors import UserError

if TYPE_CHECKING:
    from ck_mlperf.submission.complaints import Complaint

SUMMARY = "write the tree of an MLPerf submission from recorded runs, or check one"

_OWN = "own"
_DESCRIPTION = """\
Write the tree of an MLPerf submission (v6.1, ResNet-50) from recorded runs alone: the newest valid
runs of each scenario in the experiments. --system names a YAML file about the system; where there
is none, a template is written. Without experiments, --check looks at a tree that is there."""


def make_parser() -> Parser:
    parser = Parser(
        _DESCRIPTION,
        [
            "--division=open --submitter=Acme --system=system.yaml submission.edge",
            "--division=closed --submitter=Acme --system=system.yaml submission.edge "
            "--check=~/inference",
            "--check=~/inference --out_dir=submission",
        ],
        usage="[EXPERIMENT ...] [--OPTION=VALUE ...]",
    )
    parser.add_argument(
        "patterns",
        nargs="*",
        metavar="EXPERIMENT",
        help="name of an experiment entry, or a pattern with * and ? (default: none, check a tree)",
    )
    parser.add_argument(
        "--division", choices=("open", "closed"), help="of MLPerf (default: none; a tree wants one)"
    )
    parser.add_argument(
        "--submitter", metavar="NAME", help="who submits (default: none; a tree wants one)"
    )
    parser.add_argument(
        "--system",
        type=Path,
        metavar="FILE",
        help="YAML about the system; a template is written where there is no such file (default: "
        "none; a tree wants one)",
    )
    parser.add_argument(
        "--infer",
        default="",
        metavar="SCENARIO,...",
        help="MultiStream, Offline or both: inferred from SingleStream where they were not run, as "
        "MLPerf allows it to edge systems, and named as inferred (default: none)",
    )
    parser.add_argument(
        "--out_dir",
        type=Path,
        default=Path("submission"),
        metavar="FOLDER",
        help="the tree: gets closed/ or open/; the whole accuracy logs are put beside it, in "
        "FOLDER-originals (default: %(default)s)",
    )
    parser.add_argument(
        "--check",
        default=_OWN,
        metavar="PATH",
        help="a checkout of mlcommons/inference: run its submission checker on the tree, and say "
        "what to do about what it says; own: our own check alone (default: %(default)s)",
    )
    parser.add_flag("--force", "replace a tree that is there")
    add_repository(parser)
    return parser


def list_libraries(arguments: argparse.Namespace) -> list[str]:
    return ["msgspec", "numpy", "pyyaml"]


def main(arguments: argparse.Namespace) -> int:
    """Write or check the tree. Returns 1 where the checker would refuse it."""
    folder: Path = arguments.out_dir.expanduser()
    if arguments.patterns:
        complaints = _write(arguments, folder)
    else:
        from ck_mlperf.submission.check import check_tree

        if arguments.division or arguments.submitter or arguments.system:
            raise UserError("name the experiments that have the runs: EXPERIMENT ...")
        complaints = check_tree(folder)
    _print(complaints, folder)
    passed = not any(complaint.fails for complaint in complaints)
    if arguments.check not in (_OWN, "yes"):  # CK's bare --check
        passed &= _run_official(Path(arguments.check).expanduser(), folder, complaints)
    return 0 if passed else 1


def _write(arguments: argparse.Namespace, folder: Path) -> list[Complaint]:
    from ck_mlperf.common.files import is_plain_name
    from ck_mlperf.submission.runs import choose_runs, infer_scenarios, read_recorded_runs
    from ck_mlperf.submission.system import find_widest, read_system, tell_fields
    from ck_mlperf.submission.tree import Submission, refuse_to_replace, write_submission

    missing = [
        f"--{name}" for name in ("division", "submitter", "system") if not vars(arguments)[name]
    ]
    if missing:
        raise UserError(f"{', '.join(missing)}: required, to write a tree")
    if not is_plain_name(arguments.submitter) or " " in arguments.submitter:
        raise UserError(f"--submitter={arguments.submitter}: want the name of a folder, no spaces")
    refuse_to_replace(folder, arguments.force)
    recorded = read_recorded_runs(list_repositories(arguments), arguments.patterns)
    scenarios = choose_runs(recorded, arguments.division)
    infer_scenarios(scenarios, [name for name in arguments.infer.split(",") if name])
    told = tell_fields(find_widest(runs.performance.record for runs in scenarios.values()))
    system = read_system(arguments.system.expanduser(), told, ", ".join(arguments.patterns))
    submission = Submission(arguments.division, arguments.submitter, system, scenarios)
    complaints = write_submission(submission, folder)
    print(f"{folder}: {arguments.division}, {', '.join(scenarios)}")
    for label in submission.labels:
        print(f"labelled in the tree: {label}")
    return complaints


def _print(complaints: list[Complaint], folder: Path) -> None:
    for complaint in complaints:
        print(complaint.describe())
    failed = sum(complaint.fails for complaint in complaints)
    print(f"{folder}: own check: {failed or 'no'} problem{'s'[: failed != 1]}")


def _run_official(checkout: Path, folder: Path, own: list[Complaint]) -> bool:
    """Whether the official checker takes the tree; what it says beyond our own is explained."""
    from ck_mlperf.submission.official import run_checker
    from ck_mlperf.submission.requirements import VERSION

    said = run_checker(checkout, folder)
    if said.version != VERSION:
        print(f"the checker's newest version is {said.version}; the tree is of {VERSION}")
    for complaint in said.complaints:
        if not any(one.says_what(complaint) for one in own):
            print(complaint.describe())
    for line in said.unknown:
        print(f"the checker: {line}\n  -> this line is unknown here; see the checker's source")
    verdict = "submission looks OK" if said.passed else "submission has errors"
    count = len(said.complaints)
    found = f" ({count} complaint{'s'[: count != 1]}, all explained above)" if count else ""
    print(f"{folder}: official checker, {said.version}: {verdict}{found}")
    return said.passed
