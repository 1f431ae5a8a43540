"""Python: the interpreter that runs CK itself, so that there is nothing to choose."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog.home import registering


@registering
def dirs(i: dict[str, Any]) -> dict[str, Any]:
    return {"return": 0, "dirs": [os.path.dirname(sys.executable)]}


def limit(i: dict[str, Any]) -> dict[str, Any]:
    # Keep one of python, python3 and python3.x: the one that this process was started from.
    paths = [path for path in i["list"] if os.path.basename(path) == "python3"]
    return {"return": 0, "list": paths[:1]}


def version_cmd(i: dict[str, Any]) -> dict[str, Any]:
    return {"return": 0, "cmd": "", "version": platform.python_version()}


def setup(i: dict[str, Any]) -> dict[str, Any]:
    i["env"][i["customize"]["env_prefix"] + "_FILE"] = i["customize"]["full_path"]
    return {"return": 0, "bat": ""}
