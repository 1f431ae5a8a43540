"""What engines ask of the rows of a batch."""

import numpy as np
import pytest

from ck_mlperf.loadgen.engines.rows import are_neighbours


@pytest.mark.parametrize("kind", [list, tuple, np.array])
@pytest.mark.parametrize(
    ("rows", "are"),
    [
        ([0], True),
        ([7], True),
        ([4, 5, 6], True),
        ([4, 6, 5, 7], False),
        ([4, 4, 6], False),
        ([6, 5, 4], False),
        ([3, 5], False),
    ],
)
def test_neighbours(kind, rows, are):
    assert are_neighbours(kind(rows)) is are
