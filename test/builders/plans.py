"""Fixtures for plans: small models, GPUs that are there, and a stand-in for TensorRT."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ck_mlperf.tensorrt.api import find_version
from ck_mlperf.tensorrt.build import build_plan
from ck_mlperf.tensorrt.key import PlanKey
from ck_mlperf.tensorrt.plan_file import read_sidecar
from ck_mlperf.tensorrt.request import BuildRequest

from ..fakes.driver import no_gpu, set_gpus

__all__ = ["build_fake", "fake_tensorrt", "make_model", "make_request", "no_gpu", "set_gpus"]

FAKE = Path(__file__).resolve().parents[1] / "fakes" / "fake_tensorrt.py"
SIDE = 8
CHANNELS = 4
CLASSES = 10
A100 = ("NVIDIA A100-SXM4-80GB", "8.0")
KEY = PlanKey(
    onnx_sha256="1" * 64,
    source_sha256="2" * 64,
    recipe_sha256=None,
    flavour="tensorrt_rtx",
    version="1.7.1.116",
    gpu={"compute_capabilities": ["8.6", "8.9"]},
    precision="int8",
    input="uint8",
    max_batch=32,
    opt_batch=16,
    options={"flags": ["TF32"], "workspace_bytes": None},
    calibration={"images_sha256": "3" * 64, "count": 150, "method": "minmax"},
)


@pytest.fixture
def fake_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """fake_tensorrt('8.6.1'): `import tensorrt` gets a stand-in of that version. Its folder."""

    def install(version: str) -> Path:
        folder = tmp_path / f"site-{version}"
        write_fake(folder, version)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
        return folder

    yield install
    sys.modules.pop("tensorrt", None)


def write_fake(folder: Path, version: str) -> None:
    """Make a folder for sys.path, with a stand-in for TensorRT of that version."""
    (folder / "tensorrt").mkdir(parents=True)
    text = FAKE.read_text().replace("@VERSION@", version)
    (folder / "tensorrt" / "__init__.py").write_text(text)


@pytest.fixture
def build_fake(fake_tensorrt, make_request, set_gpus):
    """build_fake('10.13.0.35', precision='fp16'): what the stand-in was told, and the sidecar."""

    def build_it(version, gpu=A100, **changes):
        if find_version("tensorrt") != version:
            fake_tensorrt(version)
        set_gpus(gpu)
        request = make_request(flavour="tensorrt", **changes)
        build_plan(request, lambda line: None)
        calls = json.loads(request.output.read_bytes()[4:])
        return {name: values for name, *values in calls}, read_sidecar(request.output)

    return build_it


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_model('fp16', batch='N', ...): an ONNX classifier of uint8 pixels, with its recipe."""
    made: dict[tuple, Path] = {}

    def make(precision: str = "fp32", batch: str | int = "N", operator: str = "Relu") -> Path:
        key = (precision, batch, operator)
        if key not in made:
            path = tmp_path_factory.mktemp("model") / f"small_{precision}.onnx"
            write_model(path, build_graph(precision, batch, operator))
            made[key] = path
        return made[key]

    return make


def write_model(path: Path, graph: onnx.ModelProto) -> None:
    """Write a model of `build_graph`, with its recipe."""
    onnx.save(graph, path)
    recipe = {
        "name": "small",
        "dataset": "digits",
        "image": {"side": SIDE, "crop": 1.0, "interpolation": "area", "channels": "rgb"},
        "mean": [0, 0, 0],
        "scale": [1, 1, 1],
        "classes": CLASSES,
    }
    path.with_suffix(".json").write_text(json.dumps(recipe))


def build_graph(precision: str, batch: str | int, operator: str) -> onnx.ModelProto:
    """Cast, Sub, Mul, Transpose, Conv, `operator`, Gemm, ArgMax: as conversions compose them."""
    random = np.random.default_rng(7)
    dtype = np.float16 if precision == "fp16" else np.float32
    float_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    kernel = random.standard_normal((CHANNELS, 3, 3, 3))
    constants = {
        "mean": np.full(3, 127.5, dtype),
        "scale": np.full(3, 1 / 127.5, dtype),
        "kernel": kernel.astype(dtype),
        "weights": random.standard_normal((CHANNELS, CLASSES)).astype(dtype),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["float"], to=float_type),
        node("Sub", ["float", "mean"], ["centred"]),
        node("Mul", ["centred", "scale"], ["scaled"]),
        node("Transpose", ["scaled"], ["planar"], perm=[0, 3, 1, 2]),
    ]
    image, weights = "planar", "kernel"
    if precision == "int8":
        step = np.abs(kernel).max(axis=(1, 2, 3)) / 127
        quantised = np.round(kernel / step[:, None, None, None]).astype(np.int8)
        constants |= {
            "kernel": quantised,
            "kernel_step": step.astype(np.float32),
            "kernel_zero": np.zeros(CHANNELS, np.int8),
            "image_step": np.float32(1 / 127),
            "image_zero": np.int8(0),
        }
        nodes += [
            node("QuantizeLinear", ["planar", "image_step", "image_zero"], ["q"]),
            node("DequantizeLinear", ["q", "image_step", "image_zero"], ["dq"]),
            node("DequantizeLinear", ["kernel", "kernel_step", "kernel_zero"], ["w"], axis=0),
        ]
        image, weights = "dq", "w"
    nodes += [
        node("Conv", [image, weights], ["features"], name="convolution", pads=[1, 1, 1, 1]),
        node(operator, ["features"], ["active"], name="activation"),
        node("GlobalAveragePool", ["active"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("MatMul", ["flat", "weights"], ["logits"]),
        node("Cast", ["logits"], ["scores"], to=TensorProto.FLOAT),
        node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        node("Cast", ["best"], ["class"], to=TensorProto.INT32),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "small",
        [info("image", TensorProto.UINT8, [batch, SIDE, SIDE, 3])],
        [info("class", TensorProto.INT32, [batch])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture
def make_request(tmp_path: Path, make_model) -> Callable[..., BuildRequest]:
    """make_request(precision=..., ...): the request that most tests vary."""

    def make(**changes: object) -> BuildRequest:
        precision = str(changes.get("precision", "fp32"))
        values = {
            "model": make_model("fp32" if precision == "tf32" else precision),
            "output": tmp_path / "plans" / "model.plan",
            "precision": precision,
            "max_batch": 4,
            "flavour": "tensorrt_rtx",
        }
        return BuildRequest(**(values | changes))

    return make
