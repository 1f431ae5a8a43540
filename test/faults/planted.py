"""Faults that are planted into a copy of the library, which a campaign must find."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parents[2] / "src"


class Planted(NamedTuple):
    """A fault: `old` in a file of the library is `new`."""

    name: str
    campaign: str
    """The campaign that finds it."""
    file: str
    old: str
    new: str


PLANTED = [
    Planted(
        "no fsync",
        "kills-recording",
        "common/files.py",
        "            os.fsync(file.fileno())\n",
        "",
    ),
    Planted(
        "no lock",
        "at-once",
        "common/locks.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB)\n        except BlockingIOError:\n            on_wait",
        "fcntl.LOCK_SH | fcntl.LOCK_NB)\n        except BlockingIOError:\n            on_wait",
    ),
    Planted(
        "another run's record is taken",
        "at-once",
        "catalog/run_folder.py",
        "        lock.__enter__()\n",
        "",
    ),
    Planted(
        "a swallowed error",
        "errors-recording",
        "catalog/recording.py",
        'return {"return": 1, "error": _describe(error)}',
        'return {"return": 0}',
    ),
]


def plant(fault: Planted, folder: Path) -> Path:
    """Copy the library into a new folder, with the fault. Returns the copy."""
    copy = folder / "src"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / "ck_mlperf" / fault.file
    text = path.read_text()
    assert text.count(fault.old) == 1, f"{fault.name}: {fault.file} has changed"
    path.write_text(text.replace(fault.old, fault.new))
    return copy
