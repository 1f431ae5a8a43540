"""LoadGen's C++ interface as a library, which tells its version."""

from __future__ import annotations

import ctypes
from typing import Any


def setup(i: dict[str, Any]) -> dict[str, Any]:
    customize = i["customize"]
    library = ctypes.CDLL(customize["full_path"])
    library.ck_version.restype = ctypes.c_char_p
    customize["version"] = library.ck_version().decode()
    return {"return": 0, "bat": ""}
