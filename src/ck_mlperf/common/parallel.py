"""Do the same step for several engines at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_parallel(step: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """The results of `step` for each item. Each has a thread of its own; one item needs none.

    Returns when all are done. Raises the exception of the first item, in their order, that failed.
    """
    if len(items) == 1:
        return [step(items[0])]
    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(step, items))
