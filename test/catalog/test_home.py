"""One process at a time registers things."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ck_mlperf.catalog import home
from ck_mlperf.catalog.home import LOCK, hold_home, registering, release_home
from ck_mlperf.common.locks import hold_lock

IS_FREE = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"


@pytest.fixture
def ck(tmp_path: Path) -> SimpleNamespace:
    return SimpleNamespace(work={"dir_local_repo": str(tmp_path)}, access=lambda i: {"lst": []})


def is_free(ck: SimpleNamespace) -> bool:
    lock = Path(ck.work["dir_local_repo"], LOCK)
    return not subprocess.run(
        [sys.executable, "-c", IS_FREE, lock], stderr=subprocess.DEVNULL
    ).returncode


def test_a_block_holds_the_home_and_hooks_in_it_leave_it_held(ck: SimpleNamespace) -> None:
    setup = registering(lambda i: {"return": 0})
    with hold_home(ck):
        assert not is_free(ck)
        setup({"ck_kernel": ck})
        with hold_home(ck):
            pass
        assert not is_free(ck)
    assert is_free(ck)


def test_a_hook_holds_it_until_it_is_released(ck: SimpleNamespace) -> None:
    registering(lambda i: {"return": 0})({"ck_kernel": ck})
    try:
        assert not is_free(ck)
    finally:
        release_home()
    assert is_free(ck)


def test_who_had_to_wait_starts_its_command_anew(
    ck: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", ["/usr/bin/ck", "run"])
    monkeypatch.setattr(sys, "orig_argv", ["python3", "/usr/bin/ck", "run"])
    monkeypatch.setattr(os, "execv", lambda path, words: started.append([path, *words]))
    setup = registering(lambda i: {"return": 0})
    lock = hold_lock(Path(ck.work["dir_local_repo"], LOCK))
    lock.__enter__()

    def give_back(holder: str) -> None:
        lock.__exit__(None, None, None)

    wait = hold_lock

    def announce_and_give_back(path, on_wait, announce):  # the other one ends once this one waits
        return wait(path, lambda holder: (on_wait(holder), announce(holder), give_back(holder)))

    monkeypatch.setattr(home, "hold_lock", announce_and_give_back)
    try:
        setup({"ck_kernel": ck})
    finally:
        release_home()
    assert started == [[sys.executable, sys.executable, "/usr/bin/ck", "run"]]
    assert f"waiting: process {os.getpid()} (" in capfd.readouterr().err


def test_a_home_that_cannot_be_written_to_is_not_held(
    ck: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path, on_wait, announce):
        raise OSError(error, "refused")

    monkeypatch.setattr(home, "hold_lock", refuse)
    error = errno.EROFS
    with hold_home(ck):
        pass
    error = errno.ENOSPC
    with pytest.raises(OSError, match="refused"), hold_home(ck):
        pass
