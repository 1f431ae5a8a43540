"""The engines: one file each, and one entry in `registry`. Imported when asked for."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from ck_mlperf.loadgen.engines.base import Engine, EngineError, refuse_exit
from ck_mlperf.loadgen.engines.registry import ENGINES

if TYPE_CHECKING:
    from ck_mlperf.models.recipe import ModelRecipe

__all__ = ["ENGINES", "Engine", "EngineError", "make_engine"]


@refuse_exit()
def make_engine(
    kind: str, model: Path, recipe: ModelRecipe | None = None, device: int = 0
) -> Engine:
    """The engine for weights of `kind`, not open yet: `with make_engine('onnx', path) as engine`.

    recipe: the model's, where it is known; else it is read from the model and the JSON beside it.
    device: CUDA's number of the GPU, for the kinds that have one.
    Raises UserError where the model's recipe is missing or wrong; KeyError for another kind.
    """
    module_name, _, class_name = ENGINES[kind].implementation.partition(":")
    module = importlib.import_module(f".{module_name}", __name__)
    engine: Engine = getattr(module, class_name)(model, recipe, device)
    return engine
