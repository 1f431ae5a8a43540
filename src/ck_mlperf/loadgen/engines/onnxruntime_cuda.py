"""ONNX Runtime on an NVIDIA GPU, with CUDA graphs."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.engines.cuda_engine import CudaEngine, Slot
from ck_mlperf.loadgen.engines.session import describe_session, read_model
from ck_mlperf.models.recipe import ModelRecipe, load_model_recipe

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
# ONNX Runtime runs a graph once without capturing it, captures it the second time, then replays it.
_RUNS_TO_CAPTURE = 3


class OnnxRuntimeCuda(CudaEngine):
    """Runs an ONNX file as it is, in its own precision, from and to buffers on the device.

    A converted model (package:model-onnx-convert) takes uint8 samples and gives classes: a quarter
    of float32's bytes, and nothing to compute on the host. Its float32 layers may be computed in
    TF32: without it cuDNN has no fast algorithm for some layers, of float16 models as well.
    """

    name = "onnxruntime-cuda"

    def __init__(self, model: Path, recipe: ModelRecipe | None = None, device: int = 0) -> None:
        super().__init__(model, recipe or load_model_recipe(model), device)
        self._runs: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._graph_ids = itertools.count(1)

    def _make_streams(self) -> list[tuple[Any, Any]]:
        # A session computes on one stream, so the copies have another.
        copies = self._gpu.cuda.Stream()
        return [(copies, self._stream) for _ in range(self.depth)]

    def _open_model(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)  # what it tries with cuDNN is logged as errors
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise UserError(
                f"the ONNX Runtime that Python finds ({onnxruntime.__version__}) is not its GPU "
                "build: pip uninstall onnxruntime; pip install onnxruntime-gpu"
            )
        onnxruntime.preload_dlls()  # CUDA's and cuDNN's libraries, from where pip installed them
        self.device += ", TF32 allowed"
        self._stream = self._gpu.cuda.Stream()
        self._opened.callback(self._forget)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # Nothing may run on the CPU: that would break the graph, and no figure would show it.
        entries = {"session.disable_cpu_ep_fallback": "1"}
        for name, text in entries.items():
            options.add_session_config_entry(name, text)
        provider = {
            "device_id": str(self._gpu.ordinal),
            "enable_cuda_graph": "1",
            "prefer_nhwc": "1",
            "user_compute_stream": str(self._stream.handle),
        }
        try:
            content = read_model(self._path, options)
            self.model_sha256 = hashlib.sha256(content).hexdigest()
            self._session = onnxruntime.InferenceSession(
                content, options, providers=[("CUDAExecutionProvider", provider)]
            )
        except Exception as error:
            # ONNX Runtime's errors have no common base but Exception.
            raise UserError(
                f"{self._path}: ONNX Runtime {onnxruntime.__version__} cannot open it on "
                f"{self.device}: {error}"
            ) from error
        if self._session.get_providers()[0] != "CUDAExecutionProvider":
            raise UserError(
                f"ONNX Runtime {onnxruntime.__version__} could not load its CUDA provider: cuDNN "
                "or CUDA's libraries may be missing; its message is above. "
                "`pip install onnxruntime-gpu[cuda,cudnn]` installs both"
            )
        self.version = onnxruntime.__version__
        self.options = describe_session(self._session, options, entries)
        output = next(o for o in self._session.get_outputs() if o.name == self._recipe.output.name)
        batch = self._session.get_inputs()[0].shape[0]
        self._fixed_batch = batch if isinstance(batch, int) else None
        return tuple(output.shape[1:]), np.dtype(_DTYPES[output.type])

    def _prepare_size(self, slot: Slot, size: int) -> None:
        import onnxruntime

        recipe, ordinal = self._recipe, self._gpu.ordinal
        binding = self._session.io_binding()
        binding.bind_input(
            recipe.input.name,
            "cuda",
            ordinal,
            self._sample_dtype,
            (size, *self._sample_shape),
            slot.input,
        )
        binding.bind_output(
            recipe.output.name,
            "cuda",
            ordinal,
            self._output_dtype,
            (size, *self._output_shape),
            slot.output,
        )
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(next(self._graph_ids)))
        # The run only starts the graph; the slot's event tells when it is done.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._runs[id(slot), size] = binding, options
        for _ in range(_RUNS_TO_CAPTURE):
            self._session.run_with_iobinding(binding, options)
        self._gpu.synchronize()

    def _start(self, slot: Slot, size: int) -> None:
        self._session.run_with_iobinding(*self._runs[id(slot), size])

    def _forget(self) -> None:
        self._runs.clear()
        self._session = self._stream = None
