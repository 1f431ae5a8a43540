"""Which word was meant by a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of a message: '; did you mean Offline?', or nothing where no known word is near.

    cutoff: how near, from 0 (any word) to 1 (the same).
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""
