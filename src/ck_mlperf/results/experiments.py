"""CK's experiment entries: the records of runs in them, and the notes of runs that failed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from ck_mlperf.common import units
from ck_mlperf.common.decode import decode_json
from ck_mlperf.common.errors import UserError, describe_os_error
from ck_mlperf.common.files import read_regular, write_file
from ck_mlperf.results.migrate import read_record
from ck_mlperf.results.record import Record, UtcTime

# CK's own file with a point's repetitions, not those beside it (.flat.json, .features.json).
_POINT = re.compile(r"ckp-[^.]+\.\d{4}\.json")
_FAILURE = re.compile(r"failed-[^/]+\.json")
_MOST_BYTES = 1 << 28  # a point has a few KB for each repetition

_T = TypeVar("_T")


class ExperimentFile(NamedTuple):
    """A file that may hold runs: of a point as CK records it, or the note of one that failed."""

    experiment: str
    """Name of the CK entry that it is in."""
    path: Path
    problem: str | None = None
    """Why the folder `path` of an entry could not be listed; None: it is a file."""

    @property
    def is_failure(self) -> bool:
        """Whether it is a note for `read_failure`; else it is a point's, for `read_records`."""
        return _FAILURE.fullmatch(self.path.name) is not None


class Failure(msgspec.Struct, frozen=True):
    """The note that `ck explore loadgen` writes of a run that left no record."""

    format: Literal[1]
    """Version of this shape."""
    explore_run: str
    """The name that `ck explore loadgen` gave the run."""
    start: UtcTime
    wall_s: units.Seconds
    """Of the whole command."""
    exit_code: int
    """Negative: the signal that ended it."""
    error: str
    """The program's own last words."""
    program: str
    environment: dict[str, str]
    """The CK_ variables that the command set."""
    weights: str
    """Tags of the model, joined with commas."""
    command: list[str]


class _Repetition(msgspec.Struct):
    run: msgspec.Raw = msgspec.Raw(b"null")


class _Point(msgspec.Struct):
    characteristics_list: list[_Repetition | list[Any] | str | float | bool | None]


def find_files(repositories: Iterable[Path], patterns: Sequence[str] = ()) -> list[ExperimentFile]:
    """The files that may hold runs in the experiment entries of CK repositories, sorted.

    repositories: their folders. patterns: names of entries, with `*` and `?`; none: all.
    Raises UserError where there is no such folder or no such entry.
    """
    files: list[ExperimentFile] = []
    names: set[str] = set()
    for repository in dict.fromkeys(map(os.path.realpath, repositories)):
        for entry in _list_entries(Path(repository)):
            names.add(entry.name)
            if not patterns or any(fnmatchcase(entry.name, pattern) for pattern in patterns):
                try:
                    files += list_files(entry)
                except OSError as error:
                    files.append(ExperimentFile(entry.name, entry, describe_os_error(error)))
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"no experiment has the name {pattern}. There are: "
                f"{', '.join(sorted(names)) or 'none'}; `ck benchmark ... --record "
                "--record_repo=local --record_uoa=NAME` records one"
            )
    return files


def list_files(entry: Path) -> list[ExperimentFile]:
    """The files in the folder of an experiment entry that may hold runs, sorted."""
    names = sorted(os.listdir(entry)) if entry.is_dir() else []
    return [
        ExperimentFile(entry.name, entry / name)
        for name in names
        if _POINT.fullmatch(name) or _FAILURE.fullmatch(name)
    ]


def read_records(path: Path) -> list[Record | None]:
    """The repetitions of a point as CK recorded them; None for what is no record of ours.

    Empty where the file is another program's. Raises UserError, which names the file, where it is
    truncated, or where a record in it has a newer version, or a part that is missing or wrong.
    """
    records: list[Record | None] = []
    for found in read_repetitions(path):
        if isinstance(found, UserError):
            raise found
        records.append(found)
    return records


def read_repetitions(path: Path) -> list[Record | UserError | None]:
    """As `read_records`, but an odd record leaves the others: its error is in its place."""
    try:
        repetitions = _read(path, _Point).characteristics_list
    except msgspec.ValidationError:
        return []
    return [
        _read_repetition(part.run, path) if isinstance(part, _Repetition) else None
        for part in repetitions
    ]


def read_failure(path: Path) -> Failure:
    """The note of a run that failed. Raises UserError, which names the file, where it is none."""
    try:
        return _read(path, Failure)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: not a note of a failed run: {error}") from error


def write_failure(failure: Failure, path: Path) -> None:
    """Write the note of a run that failed."""
    write_file(path, json.dumps(msgspec.to_builtins(failure), indent=2) + "\n")


def _read_repetition(content: msgspec.Raw, path: Path) -> Record | UserError | None:
    try:
        return read_record(content)
    except (UserError, RecursionError) as error:
        return UserError(f"{path}: {error}")


def _read(path: Path, kind: type[_T]) -> _T:
    try:
        return decode_json(read_regular(path, _MOST_BYTES), kind)
    except OSError as error:
        raise UserError(describe_os_error(error)) from error
    except msgspec.ValidationError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from error


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
