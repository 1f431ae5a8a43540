from __future__ import annotations

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.explore.axes import MAX_VALUES, parse_axis


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("7", [7]),
        ("1,2,4..64", [1, 2, 4, 8, 16, 32, 64]),
        ("1,2,4..100", [1, 2, 4, 8, 16, 32, 64]),
        ("3,9,27..243", [3, 9, 27, 81, 243]),
        ("2,4,6..12", [2, 4, 6, 8, 10, 12]),
        ("1,2,3..6", [1, 2, 3, 4, 5, 6]),
        ("5, 1, 2, 4..16", [5, 1, 2, 4, 8, 16]),
        ("1..4", [1, 2, 3, 4]),
        ("1,2..4", [1, 2, 3, 4]),
        ("1..2,8..10", [1, 2, 8, 9, 10]),
        ("8..32:8", [8, 16, 24, 32]),
        ("1..64:x4", [1, 4, 16, 64]),
        ("100..130:12.5", [100, 112.5, 125]),
        ("0.1,0.2,0.4..1.6", [0.1, 0.2, 0.4, 0.8, 1.6]),
        ("2,1,2,2", [2, 1]),
        ("4..4", [4]),
        ("1..1000", list(range(1, 1001))),
    ],
)
def test_values(text: str, values: list[float]) -> None:
    assert [float(value) for value in parse_axis(text)] == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "want numbers"),
        ("1,,2", "want numbers"),
        ("1,2,", "want numbers"),
        ("a", "want numbers"),
        ("-1", "want numbers"),
        ("1e12", "want numbers"),
        ("nan", "want numbers"),
        ("1..", "want numbers"),
        ("1..2..3", "want numbers"),
        ("1/3", "want numbers"),
        ("٣", "want numbers"),
        ("9" * 100, "want numbers"),
        ("4..1", "ends before"),
        ("1..8:0", "leads nowhere"),
        ("1..8:x1", "leads nowhere"),
        ("1..8:x0.5", "leads nowhere"),
        ("0..8:x2", "leads nowhere"),
        ("1..999999999999", "more than 1000 values"),
        ("0.000001..999999999999:x1.000001", "more than 1000 values"),
        (",".join(map(str, range(MAX_VALUES + 1))), "more than 1000 values"),
        ("8,16..32", "say how it goes on, 16..32:1 or 16..32:8"),
        ("1,2,5..20", "say how it goes on"),
        ("8,4,2..16", "leads nowhere"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_axis(text)
