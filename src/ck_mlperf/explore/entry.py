"""The CK experiment entry of a sweep: its definition, the recorded runs, the failed ones.

The entry is the only state of a sweep. A process that changes it holds the lock (`hold_lock`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ck_mlperf.catalog import experiment_entry
from ck_mlperf.common import locks
from ck_mlperf.common.decode import decode_json
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import read_json, read_regular, read_text, write_file
from ck_mlperf.explore.runs import Outcome
from ck_mlperf.results.experiments import (
    Failure,
    list_files,
    read_failure,
    read_records,
    write_failure,
)
from ck_mlperf.results.record import Record

DEFINITION = "sweep.json"
LOCK = ".explore.lock"


class Entry:
    """An experiment entry in CK's local repository.

    repository: that repository's folder; name: the entry's.
    """

    def __init__(self, repository: Path, name: str) -> None:
        self.repository = repository
        self.name = name
        self.folder = repository / "experiment" / name
        self._read: set[Path] = set()
        self._paths: dict[str, Path] = {}
        self._wall_s: dict[str, float] = {}

    def check(self, definition: Mapping[str, Any]) -> None:
        """Raise UserError if the entry holds anything but the sweep of this definition."""
        path = self.folder / DEFINITION
        if path.exists():
            differences = _compare(_read_definition(path), definition)
            if differences:
                raise UserError(
                    f"experiment {self.name} is another sweep:\n  "
                    + "\n  ".join(differences)
                    + "\nGive another --name=, or the old values"
                )
        elif any(self.folder.glob("ckp-*")):
            raise UserError(
                f"experiment {self.name} has points, and no sweep made them: {self.folder} has no "
                f"{DEFINITION}. Give another --name="
            )

    def make(self, definition: Mapping[str, Any], tags: Sequence[str]) -> None:
        """Make the entry with its definition, unless it exists. Raises UserError, as `check`."""
        self.check(definition)
        if not (self.folder / DEFINITION).exists():
            if not self._is_known_to_ck():
                with experiment_entry.hold_lock(self.folder.parent):
                    experiment_entry.repair_entry(self.folder)
                    self._add(tags)
            write_file(self.folder / DEFINITION, json.dumps(definition, indent=2) + "\n")

    def remove(self) -> None:
        """Remove the entry, if it exists.

        `ck rm` would refuse one of which it has removed a part before it was killed.
        """
        if self.folder.exists():
            shutil.rmtree(self.folder)
        aliases = self.folder.parent / ".cm"
        alias = aliases / f"alias-a-{self.name}"
        with contextlib.suppress(FileNotFoundError):
            uid = read_text(alias).strip()
            (aliases / f"alias-u-{uid}").unlink(missing_ok=True)
            alias.unlink()

    def list_recorded(self) -> dict[str, float]:
        """The duration of the test in seconds of each recorded run, by the run's id.

        Reads only the files that are new since the last call.
        """
        for file in list_files(self.folder):
            if file.is_failure or file.path in self._read:
                continue
            for run, record in _list_records(file.path):
                self._paths.setdefault(run, file.path)
                self._wall_s.setdefault(run, record.timing.wall_s)
            self._read.add(file.path)
        return dict(self._wall_s)

    def read_record(self, run: str) -> Record | None:
        """The record of a run, or None."""
        self.list_recorded()
        path = self._paths.get(run)
        return None if path is None else dict(_list_records(path))[run]

    def read_failures(self) -> dict[str, Failure]:
        """The failures, by the runs' ids."""
        with _say_way_out():
            failures = [
                read_failure(file.path) for file in list_files(self.folder) if file.is_failure
            ]
        return {failure.explore_run: failure for failure in failures}

    def settle(self, outcome: Outcome) -> None:
        """Store a failure; remove an earlier one if there is a record now."""
        path = self.folder / f"failed-{outcome.run.id}.json"
        if outcome.failure is not None:
            write_failure(outcome.failure, path)
        else:
            self.log_path(outcome.run.id).unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def log_path(self, run: str) -> Path:
        """The file with the output of a failed run."""
        return self.folder / f"failed-{run}.log"

    def _is_known_to_ck(self) -> bool:
        try:
            meta = read_json(self.folder / ".cm" / "meta.json")
        except (OSError, ValueError):
            return False
        return isinstance(meta, dict)

    def _add(self, tags: Sequence[str]) -> None:
        try:
            said = ask_ck("update", f"local:experiment:{self.name}", f"--tags={','.join(tags)}")
        except UserError as error:
            said = str(error)
        if not self._is_known_to_ck():
            raise UserError(
                f"CK cannot add the experiment {self.name} to its local repository "
                f"({self.repository}): {said}"
            )


def hold_lock(repository: Path) -> contextlib.AbstractContextManager[int]:
    """Hold the lock of CK's local repository, for one sweep at a time. Yields its descriptor.

    A process that inherits the descriptor holds the lock as well: the next sweep waits for a
    benchmark that outlives its own, since two at the same time would disturb each other.
    """
    path = repository / LOCK

    def announce_wait(holder: str) -> None:
        print(
            f"waiting: a sweep (process {holder}) or a benchmark that it started is still "
            f"running on this machine, and two would disturb each other ({path})",
            file=sys.stderr,
            flush=True,
        )

    return locks.hold_lock(path, announce_wait)


def find_ck() -> str:
    """The `ck` command: the one beside this Python, else the first on PATH. Raises UserError."""
    beside = Path(sys.executable).parent / "ck"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("ck")
    if found is None:
        raise UserError(
            f"no `ck` command, neither beside {sys.executable} nor on PATH: install CK "
            "(pip install ck==2.6.4), or use `ck explore loadgen`"
        )
    return found


def ask_ck(*words: str) -> str:
    """What `ck` prints. Raises UserError if it fails."""
    process = subprocess.run(
        [find_ck(), *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if process.returncode:
        said = (process.stdout + process.stderr).strip()
        raise UserError(f"`ck {' '.join(words)}`: {said}")
    return process.stdout


def _list_records(path: Path) -> list[tuple[str, Record]]:
    """(id of the run, record) of each record in a point's file that has an id."""
    with _say_way_out():
        records = read_records(path)
        if not records or None in records:
            raise UserError(f"{path} is not a record of this program")
    return [(record.explore_run, record) for record in records if record and record.explore_run]


@contextlib.contextmanager
def _say_way_out() -> Iterator[None]:
    """Say of a file that cannot be read what to do with it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}. Move it elsewhere, and its runs are repeated") from error


def _read_definition(path: Path) -> dict[str, Any]:
    try:
        return decode_json(read_regular(path), dict[str, Any])
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON: {error}. Move it elsewhere, and its runs are repeated"
        ) from error


def _compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [
        f"{key}: {_show(old.get(key))} -> {_show(new.get(key))}"
        for key in [*old, *(key for key in new if key not in old)]
        if old.get(key) != new.get(key)
    ]


def _show(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_show, value)) or "none"
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
