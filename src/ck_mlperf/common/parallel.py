"""The same step for several engines at a time: what one takes, all take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_parallel(step: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """The results of `step` for each item, in a thread each; of one, in the caller's.

    Returns once all are done. Raises what the first of the items' steps that failed raised.
    """
    if len(items) == 1:
        return [step(items[0])]
    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(step, items))
