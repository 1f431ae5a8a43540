"""The lock between processes. Another descriptor of the same file stands in for another process."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from pathlib import Path

import pytest

from ck_mlperf.common.locks import hold_lock, lock_path


def is_free(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_it_is_held_inside_and_free_afterwards(tmp_path):
    path = lock_path(tmp_path / "model.plan")
    assert path == tmp_path / "model.plan.lock"
    with hold_lock(path):
        assert not is_free(path)
        assert path.read_text() == f"{os.getpid()}\n"
    assert is_free(path)
    with pytest.raises(ZeroDivisionError), hold_lock(path):
        _ = 1 / 0
    assert is_free(path)


@pytest.mark.parametrize(("content", "holder"), [("4711\n", "4711"), ("", "unknown")])
def test_who_has_to_wait_is_told_for_whom(tmp_path, content, holder):
    path = tmp_path / "lock"
    path.write_text(content)
    told, waits = [], threading.Event()

    def wait():
        def note(holder):
            told.append(holder)
            waits.set()

        with hold_lock(path, note):
            told.append("held")

    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        thread = threading.Thread(target=wait)
        thread.start()
        assert waits.wait(60)
        assert told == [holder]
    thread.join(60)
    assert told == [holder, "held"]


def test_nobody_is_told_where_it_is_free(tmp_path):
    told = []
    with hold_lock(tmp_path / "lock", told.append):
        assert told == []


def test_it_is_not_waited_for_longer_than_said(tmp_path):
    path = tmp_path / "lock"
    with hold_lock(path):
        with pytest.raises(TimeoutError, match="lock: held by another process"):
            hold_lock(path, timeout_s=0).__enter__()
        assert path.read_text() == f"{os.getpid()}\n"
    with hold_lock(path, timeout_s=0):
        assert not is_free(path)


def test_a_child_that_inherits_it_holds_it_too(tmp_path):
    path = tmp_path / "lock"
    with hold_lock(path) as descriptor:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[descriptor])
        other = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    assert not is_free(path)
    child.communicate()
    assert is_free(path)  # the other one has inherited nothing
    other.communicate()
