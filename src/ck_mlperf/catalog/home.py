"""CK's home, in which one process at a time installs and registers things.

CK looks a thing up, and installs it where it is missing, with nothing to keep two processes from
both doing so; what is registered twice, it asks about on the terminal ever after.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ck_mlperf.catalog.duplicates import merge_duplicates
from ck_mlperf.catalog.kernel import Kernel, Request, Result, hook
from ck_mlperf.common.locks import hold_lock
from ck_mlperf.common.processes import describe_process

LOCK = ".ck-mlperf.lock"
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)

_held: contextlib.ExitStack | None = None


@contextlib.contextmanager
def hold_home(ck: Kernel) -> Iterator[None]:
    """Within the block, no other process registers anything; hooks and blocks inside find it held.

    What is looked up within the block is as another process has left it, without duplicates. A
    process that waits says so on stderr after a second. Nothing that holds the home may start
    another `ck`, which would wait for it.
    """
    if _held is not None:
        yield
        return
    _acquire(ck)
    try:
        yield
    finally:
        release_home()


def registering(function: Callable[[Request], Result]) -> Callable[[Request], Result]:
    """A hook around an installation or a registration: from its first one on, this process holds
    the home until it ends, or until `release_home`.

    CK has looked things up before it calls the hook. So, where the home was another's meanwhile,
    the `ck` command starts anew, and finds what that one has installed.
    """

    @functools.wraps(function)
    def call(i: Request) -> Result:
        if _held is None and _acquire(i["ck_kernel"]) and os.path.basename(sys.argv[0]) == "ck":
            sys.stdout.flush()
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # this lets the home go
        return function(i)

    return hook(call)


def release_home() -> None:
    """Let other processes register things, where this one has kept them from it."""
    global _held
    held, _held = _held, None
    if held is not None:
        held.close()


def _acquire(ck: Kernel) -> bool:
    """Returns whether another process had the home. A home that cannot be written to is nobody's:
    nothing can be registered there."""
    global _held
    waited: list[str] = []

    def announce_wait(holder: str) -> None:
        print(
            f"waiting: process {holder}{describe_process(holder)} installs or registers something "
            f"in {folder}",
            file=sys.stderr,
            flush=True,
        )

    folder = Path(ck.work["dir_local_repo"])
    held = contextlib.ExitStack()
    try:
        held.enter_context(hold_lock(folder / LOCK, waited.append, announce_wait))
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
    else:
        merge_duplicates(ck)
    _held = held
    return bool(waited)
