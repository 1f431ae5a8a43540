"""Errors that a user can fix, and how a command line shows them."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import NoReturn

from ck_mlperf.common.printable import make_printable

# What a machine does to a correct program. Any other OSError is a bug and keeps its traceback.
_MACHINE_ERRNOS = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)


class UserError(Exception):
    """What the user asked for cannot be done. The message says what, where, and the fix."""


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` as the whole program and exit with its status (None: 0).

    UserError and errors of the machine (full disk, no permission, no such file): one message on
    stderr, status 2. Ctrl-C: status 130. Anything else is a bug: its traceback is shown.
    """
    try:
        status = main() or 0
    except UserError as error:
        status = _report(str(error))
    except OSError as error:
        if not is_of_machine(error):
            raise
        status = _report(describe_os_error(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


def is_of_machine(error: OSError) -> bool:
    """Whether a correct program meets such an error: a full disk, no permission, no such file."""
    return error.errno in _MACHINE_ERRNOS


def describe_os_error(error: OSError) -> str:
    """One line: the file, if the system named one, and what the system said about it."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _report(message: str) -> int:
    message = make_printable(message, keep="\n\t")  # it may quote a file that anybody made
    print(f"error: {message}", file=sys.stderr)
    return 2
