"""Recordings of `ck benchmark`: where they go, how CK writes them, and the logs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ck_mlperf.catalog.experiment_entry import (
    MODULE,
    NAME,
    NAME_RANGE,
    OUR_LOCK,
    check_writable,
    hold_lock,
    repair_entry,
    wait_for_ck_lock,
)
from ck_mlperf.catalog.kernel import read_command_line
from ck_mlperf.common.errors import UserError, describe_os_error
from ck_mlperf.common.files import MOST_LOG_BYTES, name_in_errors, read_regular, write_file
from ck_mlperf.loadgen.job import USER_CONF
from ck_mlperf.results.accuracy_runs import name_accuracy_runs
from ck_mlperf.results.kept_logs import keep_content

Request = dict[str, Any]

# The module whose `benchmark` this is. CK does not mix the points of several in one experiment.
_PROGRAM = "b0ac08fe1d3c2615"
# CK's file with the repetitions of a point.
_POINT = re.compile(r"ckp-[0-9a-f]{16}\.\d{4}\.json")
# CK's own functions, once they have been replaced.
_plain: dict[str, Callable[[Request], Request]] = {}
# The files of this process's runs, by sha256: CK writes a point after its last repetition.
_held: dict[str, bytes] = {}


def hold_files(record: Mapping[str, Any]) -> None:
    """Read the logs and the user.conf that a record of this process names, for `prepare_writes`.

    They are in the current folder, where the next repetition overwrites them.
    """
    names = {log["sha256"]: log["file"] for log in record["logs"]}
    if record["settings"]["user_conf"] is not None:
        names[record["settings"]["user_conf"]["sha256"]] = USER_CONF
    for sha256, name in names.items():
        _held[sha256] = read_regular(Path(name), MOST_LOG_BYTES)


def prepare_writes(ck: Any) -> None:
    """Make CK write files atomically in this process, and keep the logs of what it records.

    CK truncates a file and writes it again. If it is killed in between, it cannot read the
    experiment any more, nor add to it. The logs of a point's runs are written before the point.
    Processes record one at a time, and what a killed one left is out of the way by then.
    ck: CK's kernel.
    """
    import ck.files as files

    def record(i: Request) -> Request:
        """As CK's `access`; a recording holds the lock."""
        is_recording = i.get("action") == "add" and i.get("module_uoa") in MODULE
        # `common_func`: CK adds the entry, within a recording.
        if not is_recording or i.get("common_func") or not i.get("experiment_uoa"):
            return _plain["access"](i)
        repository = i.get("experiment_repo_uoa") or i.get("repo_uoa", "")
        try:
            entry = locate_entry(ck, repository, i["experiment_uoa"])
            with hold_lock(entry.parent):
                repair_entry(entry)
                wait_for_ck_lock(entry)
                return _plain["access"](i)
        except (UserError, OSError) as error:
            return {"return": 1, "error": _describe(error)}

    def set_lock(i: Request) -> Request:
        """As CK's, but atomic, and the lock says that this process also holds ours."""
        path = Path(i["path"], ".cm", "ck_lock.txt")
        if i.get("get_lock") != "yes" or i.get("unlock_uid") or path.exists():
            return _plain["set_lock"](i)
        uid = ck.gen_uid({})["data_uid"]
        write_file(path, f"{uid}\n{i.get('lock_expire_time', 30)}\n{OUR_LOCK}\n")
        return {"return": 0, "lock_uid": uid}

    if not _plain:
        _plain.update(save=files.save_text_file, access=ck.access, set_lock=ck.set_lock)
        files.save_text_file = _save
        ck.access, ck.set_lock = record, set_lock


def _save(i: Request) -> Request:
    if i.get("append") == "yes":
        return _plain["save"](i)
    folder, name = os.path.split(i["text_file"])
    if _POINT.fullmatch(name):
        ours = [sha256 for sha256 in _held if sha256 in i["string"]]
        for sha256 in ours:
            keep_content(Path(folder), _held.pop(sha256), sha256, "a file of this run")
        if ours:
            i = dict(i, string=name_accuracy_runs(Path(folder), i["string"]))
    temporary = os.path.join(folder, f".{name}.{os.getpid()}")
    with name_in_errors(Path(i["text_file"])):
        saved = _plain["save"](dict(i, text_file=temporary))
        if not saved["return"]:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, i["text_file"])
    return saved


def prepare_recording(ck: Any, arguments: Sequence[str]) -> None:
    """Make sure that CK can record the run that is about to start, if it is to record it.

    What a killed recording left of the experiment is removed. ck: CK's kernel; arguments: the
    command line. Raises UserError.
    """
    if "benchmark" not in arguments:
        return
    flags = read_command_line(arguments)
    record = flags.get("record", "no")
    if ":" in record:  # CK takes REPOSITORY:MODULE:yes
        raise UserError(f"--record={record}: name the repository with --record_repo=NAME")
    if record not in ("", "yes"):
        return
    name = flags.get("record_uoa", "")
    if not re.fullmatch(NAME, name):
        raise UserError(f"--record wants --record_uoa=NAME, of {NAME_RANGE}, not {name[:210]!r}")
    repository = flags.get("record_experiment_repo") or flags.get("record_repo", "")
    entry = locate_entry(ck, repository, name)
    try:
        with hold_lock(entry.parent):
            repair_entry(entry)
            _check_entry(ck, repository, entry)
    except (UserError, OSError) as error:
        raise UserError(
            f"CK cannot record into the experiment {name}: {_describe(error)}. "
            "Give another --record_uoa=NAME"
        ) from error


def locate_entry(ck: Any, repository: str, name: str) -> Path:
    """The folder of an experiment, which need not exist. repository: its name; '': CK chooses.

    Raises UserError where there is no such repository.
    """
    home = ck.find_path_to_repo({"repo_uoa": repository})
    if home["return"]:
        raise UserError(f"--record_repo: {home['error']}")
    wanted = {"repo_uoa": repository, "module_uoa": MODULE[0], "data_uoa": name}
    found = ck.find_path_to_data(wanted)
    if found["return"]:  # not there, or odd
        return Path(home["path"], MODULE[0], name)
    return Path(found["path"])


def _check_entry(ck: Any, repository: str, entry: Path) -> None:
    """Raise UserError for what CK finds wrong with an entry, and for one that it cannot write."""
    wanted = {"module_uoa": MODULE[0], "data_uoa": entry.name, "repo_uoa": repository}
    loaded = ck.access({"action": "load", **wanted})
    is_there = os.path.lexists(entry)
    if loaded["return"] and (is_there or loaded["return"] != 16):
        raise UserError(f"{entry} is no entry that CK can read ({loaded['error']})")
    if loaded.get("dict", {}).get("pipeline_uid", _PROGRAM) != _PROGRAM:
        raise UserError(f"{entry} has the points of another CK pipeline")
    check_writable(entry)


def _describe(error: UserError | OSError) -> str:
    return describe_os_error(error) if isinstance(error, OSError) else str(error)
