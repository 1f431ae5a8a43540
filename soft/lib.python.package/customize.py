"""A Python library: its site folder goes on PYTHONPATH (empty where the interpreter has it)."""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.tensorrt.names import MODULE, make_flavour_tag


def setup(i: dict[str, Any]) -> dict[str, Any]:
    customize, tags = i["customize"], i["tags"]
    site = customize["python_site"] = customize["full_path"]
    if MODULE in tags:  # which of its versions, as the tags of a plan name it
        tags.extend({make_flavour_tag(MODULE, customize["version"])} - set(tags))
    return {"return": 0, "bat": f"export PYTHONPATH=${{PYTHONPATH}}:{site}\n"}
