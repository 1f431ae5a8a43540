"""What the `ck` of a test does otherwise. Python imports this file: it is on PYTHONPATH.

CK does not pause for a person to read what it has printed: half a second before each run, two
seconds more in a benchmark. With KILL_FOLDER and KILL_AT=n a process is killed before its n-th
change of what is in the folder.
"""

import os
import signal
import sys
import time

FOLDER = os.environ.get("KILL_FOLDER")
PAUSING = ("/module/program/module.py", "/module/pipeline/module.py")
CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir")
changes = 0
really_sleep = time.sleep


def sleep(seconds):
    if not sys._getframe(1).f_code.co_filename.endswith(PAUSING):
        really_sleep(seconds)


def watch(event, arguments):
    global changes
    if event not in CHANGES and (event != "open" or not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        return
    if str(arguments[0]).startswith(FOLDER):
        changes += 1
        if changes == int(os.environ["KILL_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)


time.sleep = sleep
if FOLDER:
    sys.addaudithook(watch)
