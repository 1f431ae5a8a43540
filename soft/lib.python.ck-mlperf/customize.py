"""This repository's own library: src/ goes on PYTHONPATH."""

from __future__ import annotations

import os
from typing import Any


def setup(i: dict[str, Any]) -> dict[str, Any]:
    entry = os.path.dirname(os.path.abspath(__file__))
    site = os.path.join(os.path.dirname(os.path.dirname(entry)), "src")
    i["customize"]["python_site"] = site
    return {"return": 0, "bat": f"export PYTHONPATH={site}:${{PYTHONPATH}}\n"}
