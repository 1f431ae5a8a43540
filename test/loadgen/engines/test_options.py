"""How an engine was set up, as the record has it."""

from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from ck_mlperf.loadgen.engines.session import describe_session
from ck_mlperf.loadgen.engines.tensorrt import TensorRt

PLANS = Path(__file__).resolve().parents[2] / "data" / "plans"


def test_a_session_of_onnx_runtime():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 3
    options.optimized_model_filepath = "/home/me/optimized.onnx"
    provider = {"enable_cuda_graph": "1", "user_compute_stream": "94203184"}
    session = SimpleNamespace(get_provider_options=lambda: {"CUDAExecutionProvider": provider})
    entries = {"session.disable_cpu_ep_fallback": "1"}
    described = describe_session(session, options, entries)
    assert described["entries"] == entries
    assert described["providers"] == {"CUDAExecutionProvider": {"enable_cuda_graph": "1"}}
    assert described["session"]["intra_op_num_threads"] == 3
    assert described["session"]["execution_mode"] == "ORT_SEQUENTIAL"
    assert "/home" not in str(described)


@pytest.mark.parametrize(
    ("plan", "contexts", "graphs"),
    [("tensorrt-10.13.0.35", 2, "ours"), ("tensorrt_rtx-1.7.1.116", 2, "TensorRT's own")],
)
def test_a_plan_of_tensorrt(plan, contexts, graphs):
    options = TensorRt(PLANS / f"{plan}.plan").options
    assert options["plan"]["precision"] == "int8"
    assert options["plan"]["options"]["flags"] == ["TF32"]
    assert options["plan"]["calibration"]["count"] == 150
    assert (options["contexts"], options["cuda_graphs"]) == (contexts, graphs)
