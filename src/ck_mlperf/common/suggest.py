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


def find_nearest(word: str, known: Iterable[str], most_edits: int) -> str | None:
    """The known word with the fewest edits from `word`, None where all have more than the most.

    An edit adds, removes or replaces one letter.
    """
    edits, nearest = min(((count_edits(word, other), other) for other in known), default=(0, None))
    return nearest if edits <= most_edits else None


def count_edits(first: str, second: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(second) + 1))
    for place, letter in enumerate(first, start=1):
        diagonal, row[0] = row[0], place
        for column, other in enumerate(second, start=1):
            replaced = diagonal + (letter != other)
            diagonal = row[column]
            row[column] = min(replaced, row[column] + 1, row[column - 1] + 1)
    return row[-1]
