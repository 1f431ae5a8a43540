"""A Python library: what the interpreter has already, or else pip's into a folder of its own.

`PIP_REQUIREMENT` is what pip would be asked for; `PIP_ALTERNATIVES`, `PIP_BY_CUDA` (both separated
by spaces) and `PIP_NOTE` are optional: see ck_mlperf.catalog.libraries.
"""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog.home import registering
from ck_mlperf.catalog.kernel import read_deps
from ck_mlperf.catalog.libraries import Library, install_library


@registering
def pre_path(i: dict[str, Any]) -> dict[str, Any]:
    """Before CK looks for what another process may be installing."""
    return {"return": 0}


@registering
def setup(i: dict[str, Any]) -> dict[str, Any]:
    values = i["new_env"]
    library = Library(
        requirement=values["PIP_REQUIREMENT"],
        alternatives=values.get("PIP_ALTERNATIVES", "").split(),
        by_cuda=values.get("PIP_BY_CUDA", "").split(),
        note=values.get("PIP_NOTE", ""),
    )
    python = read_deps(i["deps"])["python"].path
    site = os.path.join(i["install_path"], "site")
    i["customize"]["version"] = install_library(python, site, library)
    return {"return": 0}
