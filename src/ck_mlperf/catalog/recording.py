"""Recordings of `ck benchmark`: how CK writes them, and what one leaves that was killed."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ck_mlperf.common.errors import UserError

# What CK 2.6.4 takes as the name of an entry.
_ENTRY_NAME = re.compile(r"[A-Za-z0-9_@.' -]+")
# CK's own function for writing a file, once it has been replaced.
_plain: list[Callable[[dict[str, Any]], dict[str, Any]]] = []


def make_writes_atomic() -> None:
    """Let CK write files atomically in this process.

    CK truncates a file and writes it anew. Killed in between, it leaves an experiment that it
    cannot read any more, and to which nothing can be added.
    """
    import ck.files

    if not _plain:
        _plain.append(ck.files.save_text_file)
        ck.files.save_text_file = _save_atomically


def _save_atomically(i: dict[str, Any]) -> dict[str, Any]:
    if i.get("append") == "yes":
        return _plain[0](i)
    folder, name = os.path.split(i["text_file"])
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
    """Remove what a recording left that was killed before its entry had a description.

    There is no point in such an entry, and CK refuses to add one, after the next run is done.
    """
    experiments = os.path.join(repository, "experiment")
    if _find_half_made(experiments):
        time.sleep(0.2)  # another process may be making one at this moment
        for name in _find_half_made(experiments):
            print(
                f"removing the empty experiment {name}: its recording was killed", file=sys.stderr
            )
            shutil.rmtree(os.path.join(experiments, name))
            _remove_alias(os.path.join(experiments, ".cm"), name)


def _find_half_made(experiments: str) -> list[str]:
    """Entries without a description and without a point."""
    if not os.path.isdir(experiments):
        return []
    return [
        name
        for name in os.listdir(experiments)
        if name != ".cm"
        and not os.path.exists(os.path.join(experiments, name, ".cm", "meta.json"))
        and not any(f.startswith("ckp-") for f in os.listdir(os.path.join(experiments, name)))
    ]


def _remove_alias(folder: str, name: str) -> None:
    alias = os.path.join(folder, f"alias-a-{name}")
    if os.path.exists(alias):
        with open(alias, encoding="utf-8") as file:
            uid = file.read().strip()
        for stale in (alias, os.path.join(folder, f"alias-u-{uid}")):
            if os.path.exists(stale):
                os.remove(stale)
