"""ONNX Runtime on the CPU."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.engines.answers import has_top5, read_labels
from ck_mlperf.loadgen.engines.base import Engine, EngineError
from ck_mlperf.loadgen.engines.rows import are_neighbours
from ck_mlperf.loadgen.engines.session import describe_session, read_model
from ck_mlperf.models.recipe import ModelRecipe, load_model_recipe, normalise


class OnnxRuntimeCpu(Engine):
    """Keeps the loaded images as the model's input tensor, normalised in advance.

    MLPerf allows untimed preprocessing. A batch of consecutive rows goes to the model as a slice,
    any other is gathered into a buffer first.
    """

    name = "onnxruntime-cpu"

    def __init__(self, model: Path, recipe: ModelRecipe | None = None, device: int = 0) -> None:
        self._path = model
        self._recipe = recipe or load_model_recipe(model)
        self.max_batch = self._recipe.max_batch
        self.gives_top5 = has_top5(self._recipe)
        self._batch_number = 0
        self._fixed_batch: int | None = None

    def open(self) -> None:
        import onnxruntime

        threads = len(os.sched_getaffinity(0))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only: warnings are for the model's author
        try:
            content = read_model(self._path, options)
            self.model_sha256 = hashlib.sha256(content).hexdigest()
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # ONNX Runtime's errors have no common base but Exception.
            raise UserError(f"{self._path}: ONNX Runtime cannot open it: {error}") from error
        self.version = onnxruntime.__version__
        self.options = describe_session(self._session, options)
        self.device = f"cpu, {threads} threads"
        batch = self._session.get_inputs()[0].shape[0]
        self._fixed_batch = batch if isinstance(batch, int) else None
        side = self._recipe.image.side
        self.load(np.zeros((1, side, side, 3), np.uint8))
        self.enqueue([0])
        self.unload()

    def load(self, images: NDArray[np.uint8]) -> None:
        self._images = normalise(images, self._recipe)
        self._buffer = np.zeros(
            (self._fixed_batch or 0, *self._images.shape[1:]), self._images.dtype
        )

    def unload(self) -> None:
        self._images = self._buffer = np.empty(0)

    def enqueue(self, rows: Sequence[int]) -> None:
        self._batch_number += 1
        samples = self._gather(rows)
        try:
            (output,) = self._session.run(
                [self._recipe.output.name], {self._recipe.input.name: samples}
            )
        except Exception as error:  # as in open
            raise EngineError(
                f"{self.name}: batch {self._batch_number} of {self._path} failed in ONNX Runtime: "
                f"{str(error).strip()}"
            ) from error
        if len(output) != len(samples):
            raise self._describe(f"{len(output)} rows for {len(samples)} samples")
        self._output = output[: len(rows)]

    def collect(self) -> NDArray[np.int32]:
        return read_labels(self._output, self._recipe, self._describe)

    def close(self) -> None:
        self.unload()
        self._session = None

    def _gather(self, rows: Sequence[int]) -> NDArray[Any]:
        """The input tensor of a batch, padded with old rows where the model's batch is fixed."""
        count, first = len(rows), rows[0]
        is_whole = self._fixed_batch in (None, count)
        if is_whole and are_neighbours(rows):
            return self._images[first : first + count]
        if len(self._buffer) < count:
            self._buffer = np.empty((count, *self._images.shape[1:]), self._images.dtype)
        # With mode 'raise' numpy gathers into a buffer of its own first.
        np.take(self._images, rows, axis=0, out=self._buffer[:count], mode="clip")
        return self._buffer[: self._fixed_batch or count]

    def _describe(self, what: str) -> EngineError:
        return EngineError(
            f"{self.name}: batch {self._batch_number} of {self._path} gave {what}. "
            "Check the model, and the mean and scale of its recipe"
        )
