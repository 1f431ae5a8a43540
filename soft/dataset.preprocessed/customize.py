"""A folder that CK hands on by its path alone."""

from __future__ import annotations

from typing import Any


def setup(i: dict[str, Any]) -> dict[str, Any]:
    customize = i["customize"]
    i["env"][customize["env_prefix"]] = customize["full_path"]
    return {"return": 0, "bat": ""}
