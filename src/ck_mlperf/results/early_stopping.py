"""How many queries LoadGen's early stopping asks for (MLPerf's rules, appendix on early stopping).

Of n queries t were late. LoadGen takes the percentile for measured if that is too few for an
accident: where just the allowed share of queries is late, the chance of t or fewer among n must be
at most 1%.
"""

from __future__ import annotations

import math
from statistics import NormalDist

FEWEST_LATE = 1
"""With which LoadGen estimates a percentile at all, in SingleStream and MultiStream."""

_CHANCE = 0.01
_MOST_QUERIES = 10**8
_EXACT_UP_TO = 200  # late queries; from there the normal distribution is as good


def count_queries(allowed_share: float, late: int, late_share: float) -> int | None:
    """The fewest queries that are enough, nearly.

    allowed_share: of late queries, 0.01 for the 99th percentile. late: how many are late at least.
    late_share: the share that is late as the run gets longer. None: no number is enough.
    """
    if late_share >= allowed_share:
        return None
    enough = 1
    while not _is_enough(enough, allowed_share, late, late_share):
        enough *= 2
        if enough > _MOST_QUERIES:
            return None
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        if _is_enough(middle, allowed_share, late, late_share):
            enough = middle
        else:
            few = middle
    return enough


def _is_enough(queries: int, allowed_share: float, late: int, late_share: float) -> bool:
    expected = max(late, math.ceil(late_share * queries))
    if expected > _EXACT_UP_TO:
        mean = allowed_share * queries
        distribution = NormalDist(mean, math.sqrt(mean * (1 - allowed_share)))
        return distribution.cdf(expected + 0.5) <= _CHANCE
    if queries <= expected:
        return False
    log_odds = math.log(allowed_share / (1 - allowed_share))
    log_chance, total = queries * math.log1p(-allowed_share), 0.0
    for count in range(expected + 1):
        total += math.exp(log_chance)
        log_chance += log_odds + math.log((queries - count) / (count + 1))
    return total <= _CHANCE
