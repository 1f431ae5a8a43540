"""Simplify a network with ONNX Runtime, which also opens it to run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.models.graph import clear_types, name_nodes, walk_graphs
from ck_mlperf.models.network import DOMAINS, keep_standard_opset

if TYPE_CHECKING:
    import onnx


def simplify(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network, with batch norms folded into convolutions and constants computed.

    Only those of ONNX Runtime's optimisations that leave ONNX's own operators. path: of the source,
    for messages. Raises UserError where ONNX Runtime cannot read the model.
    """
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="convert.") as folder:
        target = Path(folder) / "simplified.onnx"
        basic = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        open_session(
            path, model, graph_optimization_level=basic, optimized_model_filepath=str(target)
        )
        simple = onnx.load(str(target))
    foreign = {node.domain for part in walk_graphs(simple.graph) for node in part.node}
    if not foreign.issubset(DOMAINS):
        raise RuntimeError(f"onnxruntime {onnxruntime.__version__} put {foreign} into {path}")
    keep_standard_opset(path, simple)
    simple.ir_version = model.ir_version
    clear_types(simple.graph)
    name_nodes(simple.graph)
    return simple


def open_session(path: Path, model: onnx.ModelProto, **options: Any) -> Any:
    """An onnxruntime.InferenceSession of the model on the CPU.

    path: of the source, for messages. options: attributes of onnxruntime.SessionOptions.
    Raises UserError where ONNX Runtime cannot open it.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors only: the rest is for the model's author
    for name, value in options.items():
        setattr(settings, name, value)
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise UserError(f"{path}: ONNX Runtime cannot open it: {error}") from error
