"""Recorded runs, read from the experiment entries of CK repositories."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from ck_mlperf.analyze.rows import make_failed_run, make_run
from ck_mlperf.analyze.runs import Run
from ck_mlperf.common.errors import UserError, describe_os_error

# CK's own file with a point's repetitions, not what lies beside it (.flat.json, .features.json);
# and what `ck explore loadgen` notes of a run that failed.
_POINT = re.compile(r"ckp-[^.]+\.\d{4}\.json")
_FAILURE = re.compile(r"failed-[^/]+\.json")


class ExperimentFile(NamedTuple):
    """A file that may hold runs."""

    experiment: str
    """Name of the CK entry that it is in."""
    path: Path


def read_runs(repositories: Iterable[Path], patterns: Sequence[str] = ()) -> list[Run]:
    """The runs in the experiment entries of CK repositories, in the order of names and files.

    repositories: their folders. patterns: names of entries, with `*` and `?`; none: all.
    Files that cannot be read are named on stderr, others that are not ours are counted there.
    Raises UserError where there is no such folder or no such entry.
    """
    runs: list[Run] = []
    unreadable = foreign = 0
    for file in find_files(repositories, patterns):
        try:
            found = read_file(file)
        except UserError as error:
            print(f"passed over: {error}", file=sys.stderr)
            unreadable += 1
            continue
        runs += found
        foreign += not found
    if unreadable:
        print(f"{_count(unreadable)} passed over, which could not be read", file=sys.stderr)
    if foreign:
        print(f"{_count(foreign)} passed over, of other programs", file=sys.stderr)
    return runs


def find_files(repositories: Iterable[Path], patterns: Sequence[str] = ()) -> list[ExperimentFile]:
    """The files that may hold runs, sorted; arguments and errors as of `read_runs`."""
    files: list[ExperimentFile] = []
    names: set[str] = set()
    for repository in dict.fromkeys(map(os.path.realpath, repositories)):
        for entry in _list_entries(Path(repository)):
            names.add(entry.name)
            if not patterns or any(fnmatchcase(entry.name, pattern) for pattern in patterns):
                files += [
                    ExperimentFile(entry.name, entry / name)
                    for name in sorted(os.listdir(entry))
                    if _POINT.fullmatch(name) or _FAILURE.fullmatch(name)
                ]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"no experiment has the name {pattern}. There are: "
                f"{', '.join(sorted(names)) or 'none'}; `ck benchmark ... --record "
                "--record_repo=local --record_uoa=NAME` records one"
            )
    return files


def read_file(file: ExperimentFile) -> list[Run]:
    """The runs in a file; none where it is another program's.

    Raises UserError, which names the file, where it is truncated or otherwise no whole record.
    """
    try:
        content = json.loads(file.path.read_bytes())
    except OSError as error:
        raise UserError(describe_os_error(error)) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file.path}: no JSON: {error}") from error
    name = file.path.name
    try:
        if _FAILURE.fullmatch(name):
            if not isinstance(content, dict):
                raise UserError("no note of a failed run")
            return [make_failed_run(content, file.experiment, name)]
        return [
            make_run(record, file.experiment, name, repetition)
            for repetition, record in enumerate(_list_records(content))
            if record is not None
        ]
    except UserError as error:
        raise UserError(f"{file.path}: {error}") from error


def _list_entries(repository: Path) -> list[Path]:
    if not repository.is_dir():
        raise UserError(f"{repository}: no such folder; --repository wants that of a CK repository")
    experiments = repository / "experiment"
    if not experiments.is_dir():
        return []
    return sorted(
        Path(entry.path)
        for entry in os.scandir(experiments)
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _list_records(content: Any) -> list[dict[str, Any] | None]:
    """The repetitions of a point as CK recorded them; None for what is no record of ours."""
    repetitions = content.get("characteristics_list") if isinstance(content, dict) else None
    if not isinstance(repetitions, list):
        return []
    runs = [part.get("run") if isinstance(part, dict) else None for part in repetitions]
    return [run if isinstance(run, dict) and "schema_version" in run else None for run in runs]


def _count(files: int) -> str:
    return "1 file was" if files == 1 else f"{files} files were"
