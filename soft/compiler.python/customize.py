"""Python: the interpreter that runs CK itself, so that there is nothing to choose."""

import os
import platform
import sys


def dirs(i):
    return {"return": 0, "dirs": [os.path.dirname(sys.executable)]}


def limit(i):
    # Keep one of python, python3 and python3.x: the one that this process was started from.
    return {
        "return": 0,
        "list": [path for path in i["list"] if os.path.basename(path) == "python3"][:1],
    }


def version_cmd(i):
    return {"return": 0, "cmd": "", "version": platform.python_version()}


def setup(i):
    i["env"][i["customize"]["env_prefix"] + "_FILE"] = i["customize"]["full_path"]
    return {"return": 0, "bat": ""}
