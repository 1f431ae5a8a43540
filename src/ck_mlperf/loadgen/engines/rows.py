"""How the rows of a batch lie in an engine's samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def are_neighbours(rows: Sequence[int]) -> bool:
    """Whether the rows of a batch (a sequence, or int64 [n]) are consecutive, in this order."""
    count, first = len(rows), rows[0]
    if rows[-1] - first != count - 1:
        return False
    if isinstance(rows, np.ndarray):
        return bool((rows == np.arange(first, first + count)).all())
    return list(rows) == list(range(first, first + count))
