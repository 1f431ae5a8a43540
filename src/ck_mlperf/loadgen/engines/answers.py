"""From a network's output to the labels of the data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ck_mlperf.loadgen.engines.base import EngineError
    from ck_mlperf.models.recipe import ModelRecipe

_TOP = 5
_UNSIGNED = {4: np.uint32, 8: np.uint64}


def has_top5(recipe: ModelRecipe) -> bool:
    """Whether the five best labels can be read from the model's output."""
    return recipe.output.kind == "scores" and recipe.classes >= _TOP


def read_labels(
    output: NDArray[Any], recipe: ModelRecipe, describe: Callable[[str], EngineError]
) -> NDArray[np.int32]:
    """The labels of a batch: int32 [n, 5], best first, where `has_top5`, else [n].

    output: [n, classes] scores or [n] classes; axes of length 1 do not matter. The result shares no
    memory with it. describe: makes the error to raise, of 'a score that is not a finite number' and
    the like.
    """
    if recipe.output.kind == "class":
        classes = output.reshape(-1)
        # As unsigned numbers, negative classes are large ones: one comparison saves 3 microseconds.
        if (classes.view(_UNSIGNED[classes.itemsize]) >= recipe.classes).any():
            raise describe(f"a class outside 0 to {recipe.classes - 1}")
    else:
        if output.size != len(output) * recipe.classes:
            raise describe(f"an output of shape {output.shape}, want {recipe.classes} scores a row")
        scores = output.reshape(len(output), recipe.classes)
        if not np.isfinite(scores).all():
            raise describe("a score that is not a finite number")
        classes = pick_top5(scores) if has_top5(recipe) else scores.argmax(axis=1)
    labels: NDArray[np.int32] = np.subtract(
        classes, recipe.labels_offset, dtype=np.int32, casting="unsafe"
    )
    return labels


def pick_top5(scores: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """The five best classes of each row of scores [n, classes]: [n, 5], best first.

    Of equal scores the lower class comes first.
    """
    best = np.sort(np.argpartition(scores, -_TOP, axis=1)[:, -_TOP:], axis=1)
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)
