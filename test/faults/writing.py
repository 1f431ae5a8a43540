"""Kills, power cuts and disks that fail, at each change that something makes on the disk."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from .processes import Ended, run
from .shim import ACTIONS, Fault, count_changes
from .writers import RECORDINGS, WRITERS, Writer

KILLS = ("kill", "power cut")
ERRORS = ("ENOSPC", "EROFS", "EIO")


class Writing:
    """What `writers` write, each stopped at its n-th change; every n, in an order by the seed."""

    def __init__(
        self, actions: Sequence[str], writers: Sequence[Writer], seed: int, folder: Path
    ) -> None:
        self._folder = folder
        cases = []
        for writer in writers:
            self._prepare(writer)
            changes = self._count(writer)
            # The last one hits nothing: power may also be cut after the end.
            cases += [(writer, action, at) for action in actions for at in range(1, changes + 2)]
        random.Random(seed).shuffle(cases)
        self._cases = cases

    def describe(self, index: int) -> str:
        """A case in words; after the last one, they begin again."""
        writer, action, at = self._cases[index % len(self._cases)]
        return f"{writer.name}, {action} at change {at}"

    def try_case(self, index: int) -> None:
        """Raises AssertionError where a promise is not kept."""
        writer, action, at = self._cases[index % len(self._cases)]
        work = self._copy(writer)
        fault = Fault(action, at, work, self._folder / "log")
        fault.log.unlink(missing_ok=True)
        ended = self._run(writer, fault)
        ended.check_said()
        # "error: No space left on device" says not where.
        what = os.strerror(ACTIONS[action][1])
        assert not re.search(rf"error: {what}$", ended.said, re.MULTILINE), ended.said
        if action == "power cut":
            fault.cut_power()
        is_there = writer.check(work)
        if ended.code == 0:
            assert is_there, f"status 0, and nothing was written: {ended.said}"
        # Nothing can be removed from a disk that is read-only.
        if ended.code > 0 and writer.no_result_after_an_error and action != "EROFS":
            assert not is_there, f"status {ended.code}, and a result: {ended.said}"
        again = self._run(writer)
        assert again.code == 0, f"it cannot be repeated: {again.said}"
        assert "waiting" not in again.said, f"it waits for a dead process: {again.said}"
        assert writer.check(work), f"repeated, and not there: {again.said}"

    def _prepare(self, writer: Writer) -> None:
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        writer.prepare(work)
        work.rename(self._folder / writer.name)

    def _copy(self, writer: Writer) -> Path:
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self._folder / writer.name, work, symlinks=True)
        return work

    def _run(self, writer: Writer, fault: Fault | None = None) -> Ended:
        def step() -> None:
            if fault:
                fault.arm()
            writer.write()

        return run(step, self._folder / "work", self._folder / "said")

    def _count(self, writer: Writer) -> int:
        """The changes that it makes where nothing goes wrong."""
        fault = Fault("count", 0, self._copy(writer), self._folder / "log")
        fault.log.unlink(missing_ok=True)
        ended = self._run(writer, fault)
        assert ended.code == 0, f"{writer.name}: {ended.said}"
        assert writer.check(fault.folder), f"{writer.name}: it does not write what it should"
        return count_changes(fault.log)


def kill_recordings(seed: int, folder: Path) -> Writing:
    return Writing(KILLS, RECORDINGS, seed, folder)


def kill_writers(seed: int, folder: Path) -> Writing:
    return Writing(KILLS, WRITERS, seed, folder)


def fail_recordings(seed: int, folder: Path) -> Writing:
    return Writing(ERRORS, RECORDINGS, seed, folder)


def fail_writers(seed: int, folder: Path) -> Writing:
    return Writing(ERRORS, WRITERS, seed, folder)
