"""A lock between processes: a file that one of them holds."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ck_mlperf.common.files import name_in_errors

_POLL_S = 0.05
_LONG_S = 1.0


def lock_path(path: Path) -> Path:
    """The lock beside a file that several processes may write."""
    return path.with_name(path.name + ".lock")


@contextlib.contextmanager
def hold_lock(
    path: Path,
    on_wait: Callable[[str], None] = lambda holder: None,
    on_long_wait: Callable[[str], None] = lambda holder: None,
    timeout_s: float | None = None,
) -> Iterator[int]:
    """Hold the lock `path`, a file that is made if it is missing. Yields its descriptor.

    The kernel releases it when the process ends, however that is. A child that inherits the
    descriptor holds the lock as well.
    on_wait: called once if another process holds the lock, with its pid, or 'unknown'.
    on_long_wait: the same, after a second; not with timeout_s.
    timeout_s: how long to wait; None: for ever. Raises TimeoutError after that.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # the umask decides for others
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait(_read_holder(fd))
            try:
                _wait(fd, path, _LONG_S if timeout_s is None else timeout_s)
            except TimeoutError:
                if timeout_s is not None:
                    raise
                on_long_wait(_read_holder(fd))
                fcntl.flock(fd, fcntl.LOCK_EX)
        with name_in_errors(path):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield fd
    finally:
        os.close(fd)


def _read_holder(fd: int) -> str:
    return os.pread(fd, 20, 0).decode(errors="replace").strip() or "unknown"


def _wait(fd: int, path: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path}: held by another process") from None
            time.sleep(_POLL_S)
        else:
            return
