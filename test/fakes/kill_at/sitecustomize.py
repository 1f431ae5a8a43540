"""Kills this process before its n-th change of what is in a folder: KILL_FOLDER, KILL_AT=n.

Python imports this file if its folder is on PYTHONPATH.
"""

import os
import signal
import sys

FOLDER = os.environ.get("KILL_FOLDER")
changes = 0


def watch(event, arguments):
    global changes
    if event not in ("open", "os.mkdir", "os.remove", "os.rename"):
        return
    mode = arguments[1] if event == "open" else "w"
    is_change = isinstance(mode, str) and bool({*mode} & {*"wax+"})
    path = arguments[0]
    if is_change and str(path).startswith(FOLDER):
        changes += 1
        if changes == int(os.environ["KILL_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)


if FOLDER:
    sys.addaudithook(watch)
