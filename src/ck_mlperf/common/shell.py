"""What can be handed to CK, which writes it into a bash script without quoting it."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# In double quotes at most: CK adds them where there is a space.
_PLAIN = re.compile(r"[\w./:,=+@%~ -]*")
PLAIN_RULE = "letters, digits, spaces and any of ./:,=+@%~_-"


def is_plain(text: str) -> bool:
    """Whether no character of `text` means anything to a shell."""
    return _PLAIN.fullmatch(text) is not None


def find_unsafe(environment: Mapping[str, str]) -> list[str]:
    """NAME=VALUE of each variable of which the name or the value would be interpreted."""
    return [
        f"{name}={value}"
        for name, value in environment.items()
        if not (_NAME.fullmatch(name) and is_plain(value))
    ]
