"""Recordings of `ck benchmark`: how CK writes them, the logs, and what a killed one leaves."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.job import USER_CONF
from ck_mlperf.results.accuracy_runs import name_accuracy_runs
from ck_mlperf.results.kept_logs import keep_content

# What CK 2.6.4 takes as the name of an entry.
_ENTRY_NAME = re.compile(r"[A-Za-z0-9_@.' -]+")
# CK's file with the repetitions of a point.
_POINT = re.compile(r"ckp-[0-9a-f]{16}\.\d{4}\.json")
# CK's own function for writing a file, once it has been replaced.
_plain: list[Callable[[dict[str, Any]], dict[str, Any]]] = []
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
        _held[sha256] = Path(name).read_bytes()


def prepare_writes() -> None:
    """Make CK write files atomically in this process, and keep the logs of what it records.

    CK truncates a file and writes it again. If it is killed in between, it cannot read the
    experiment any more, nor add to it. The logs of a point's runs are written before the point.
    """
    import ck.files

    if not _plain:
        _plain.append(ck.files.save_text_file)
        ck.files.save_text_file = _save


def _save(i: dict[str, Any]) -> dict[str, Any]:
    if i.get("append") == "yes":
        return _plain[0](i)
    folder, name = os.path.split(i["text_file"])
    if _POINT.fullmatch(name):
        ours = [sha256 for sha256 in _held if sha256 in i["string"]]
        for sha256 in ours:
            keep_content(Path(folder), _held.pop(sha256), sha256, "a file of this run")
        if ours:
            i = dict(i, string=name_accuracy_runs(Path(folder), i["string"]))
    temporary = os.path.join(folder, f".{name}.{os.getpid()}")
    saved = _plain[0](dict(i, text_file=temporary))
    if not saved["return"]:
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, i["text_file"])
    return saved


def check_recording(arguments: Sequence[str]) -> None:
    """Raise UserError where `ck` is to record under a name that CK refuses, after the run.

    arguments: the command line.
    """
    if os.path.basename(arguments[0]) != "ck" or "benchmark" not in arguments:
        return
    flags = dict(flag[2:].partition("=")[::2] for flag in arguments if flag.startswith("--"))
    if flags.get("record", "no") in ("", "yes"):
        name = flags.get("record_uoa", "").rpartition(":")[2]
        if not _ENTRY_NAME.fullmatch(name):
            raise UserError(
                f"--record wants --record_uoa=NAME, of letters, digits and _ @ . ' -, not {name!r}"
            )


def remove_half_made_experiments(repository: str) -> None:
    """Remove entries whose recording was killed before CK had described them.

    Such an entry has no point, and CK would refuse to add one, after the next run.
    """
    experiments = Path(repository) / "experiment"
    if _find_half_made(experiments):
        time.sleep(0.2)  # another process may be making one at this moment
        for name in _find_half_made(experiments):
            print(
                f"removing the empty experiment {name}: its recording was killed", file=sys.stderr
            )
            with contextlib.suppress(FileNotFoundError):  # CK writes the aliases before the folder
                shutil.rmtree(experiments / name)
            _remove_alias(experiments / ".cm", name)


def _find_half_made(experiments: Path) -> set[str]:
    """Names of entries without a description and without a point; some are aliases only."""
    names = {path.name for path in experiments.glob("*") if path.name != ".cm"}
    prefix = "alias-a-"
    names |= {path.name.removeprefix(prefix) for path in experiments.glob(f".cm/{prefix}*")}
    return {
        name
        for name in names
        if not (experiments / name / ".cm" / "meta.json").exists()
        and not any((experiments / name).glob("ckp-*"))
    }


def _remove_alias(folder: Path, name: str) -> None:
    alias = folder / f"alias-a-{name}"
    if alias.exists():
        uid = alias.read_text(encoding="utf-8").strip()
        alias.unlink()
        (folder / f"alias-u-{uid}").unlink(missing_ok=True)
