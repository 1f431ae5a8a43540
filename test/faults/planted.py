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
    """The campaign that finds it,"""
    cases: str
    """with its cases whose description has these words."""
    file: str
    old: str
    new: str


PLANTED = [
    Planted(
        "no fsync",
        "kills-recording",
        "power cut",
        "common/files.py",
        "            os.fsync(file.fileno())\n",
        "",
    ),
    Planted(
        "no fsync of an array",
        "kills-writing",
        "preprocessed set, power cut",
        "images/partial.py",
        "        os.fsync(file.fileno())\n",
        "        pass\n",
    ),
    Planted(
        "what a killed recording left is not removed",
        "kills-recording",
        "kill",
        "catalog/experiment_entry.py",
        "    if not by_ck or",
        "    if uid is not None or",
    ),
    Planted(
        "no lock",
        "at-once",
        "recordings",
        "common/locks.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB)\n        except BlockingIOError:\n            on_wait",
        "fcntl.LOCK_SH | fcntl.LOCK_NB)\n        except BlockingIOError:\n            on_wait",
    ),
    Planted(
        "no lock on a run's folder",
        "at-once",
        "in one folder",
        "catalog/run_folder.py",
        "        lock.__enter__()\n",
        "",
    ),
    Planted(
        "no hash check of a plan",
        "hostile",
        "a plan",
        "tensorrt/plan_file.py",
        "    if digest != sidecar.plan_sha256:",
        "    if len(digest) != len(sidecar.plan_sha256):",
    ),
    Planted(
        "no hash check of pixels",
        "hostile",
        "images.npy",
        "images/preprocessed.py",
        "    if verify and",
        "    if not verify and",
    ),
    Planted(
        "a swallowed error of a recording",
        "errors-recording",
        "",
        "catalog/recording.py",
        'return {"return": 1, "error": _describe(error)}',
        'return {"return": 0}',
    ),
    Planted(
        "a swallowed error of a plan",
        "errors-writing",
        "a plan",
        "tensorrt/plan_file.py",
        "    write_file(plan, content)\n",
        "    try:\n        write_file(plan, content)\n    except OSError:\n        return\n",
    ),
    Planted(
        "a failed run leaves its record",
        "errors-writing",
        "a run",
        "results/job_run.py",
        "            remove_results()\n            raise",
        "            raise",
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
