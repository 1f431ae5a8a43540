"""disk_faults.c from Python: compiled, armed in a process, and what a power cut takes away."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("disk_faults.c")
COMPILER = "cc"
_COUNT, _KILL, _POWER_CUT, _FAIL = range(4)
ACTIONS = {
    "count": (_COUNT, 0, 0),
    "kill": (_KILL, 0, 0),
    "power cut": (_POWER_CUT, 0, 0),
    # A disk that is full or read-only stays so. An error of the device may be the only one.
    "ENOSPC": (_FAIL, errno.ENOSPC, 0),
    "EROFS": (_FAIL, errno.EROFS, 0),
    "EIO": (_FAIL, errno.EIO, 1),
}


def compile_shim(folder: Path) -> Path | None:
    """The library for LD_PRELOAD, made in a folder; None where there is no compiler."""
    if shutil.which(COMPILER) is None:
        return None
    library = folder / "disk_faults.so"
    command = [COMPILER, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, SOURCE]
    subprocess.run([*command, "-ldl"], check=True)
    return library


class Fault(NamedTuple):
    """What happens at the n-th change of what is below a folder, from 1."""

    action: str
    """One of ACTIONS."""
    at: int
    folder: Path
    log: Path
    """Gets a line for each change; it is not below the folder."""

    def arm(self) -> None:
        """Let it happen to this process, and to those that it forks from now on."""
        what, number, once = ACTIONS[self.action]
        words = (os.fsencode(self.folder), self.at, what, number, once, os.fsencode(self.log))
        ctypes.CDLL(None).faults_arm(words[0], ctypes.c_long(self.at), *words[2:])

    def preload(self, library: Path) -> dict[str, str]:
        """The environment in which a program is armed from its start; paths without spaces."""
        what, number, once = ACTIONS[self.action]
        words = (self.at, what, number, once, self.folder, self.log)
        return {"LD_PRELOAD": str(library), "FAULTS_ARM": " ".join(map(str, words))}

    def cut_power(self) -> None:
        """Empty the files that were written, and not flushed after that."""
        unflushed: set[str] = set()
        for line in self.log.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            what, path, other = line.split("\t")
            if what == "W":
                unflushed.add(path)
            elif what == "S":
                unflushed.discard(path)
            elif what == "A":
                unflushed.clear()
            elif what == "L" and path in unflushed:
                unflushed.add(other)
            elif what == "R":
                moved = {name for name in unflushed if f"{name}/".startswith(f"{path}/")}
                replaced = {name for name in unflushed if f"{name}/".startswith(f"{other}/")}
                unflushed -= moved | replaced
                unflushed |= {other + name[len(path) :] for name in moved}
        for name in unflushed:
            if os.path.isfile(name):
                os.truncate(name, 0)


def count_changes(log: Path) -> int:
    """How many changes a process made that was armed with the action "count"."""
    return sum(line.startswith("C") for line in log.read_text().splitlines())
