"""This repository's own library: src/ goes on PYTHONPATH."""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog.home import registering
from ck_mlperf.catalog.kernel import SOURCE, Catalog
from ck_mlperf.catalog.old_homes import adopt_old_libraries


@registering
def dirs(i: dict[str, Any]) -> dict[str, Any]:
    """Before CK looks for what another process may be registering."""
    return {"return": 0}


@registering
def setup(i: dict[str, Any]) -> dict[str, Any]:
    customize = i["customize"]
    customize["python_site"] = str(SOURCE)
    adopt_old_libraries(Catalog(i["ck_kernel"]), customize["full_path"])
    return {"return": 0, "bat": f"export PYTHONPATH={SOURCE}:${{PYTHONPATH}}\n"}
