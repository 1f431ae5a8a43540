"""Build a TensorRT plan from an ONNX classifier.

    python examples/build_plan.py MODEL.onnx FOLDER [fp32|fp16]

MODEL.json beside the model says what the file itself does not (docs/add-a-model.md). TensorRT for
RTX needs no GPU to build; other flavours of TensorRT build for the GPU of this machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ck_mlperf.common.errors import run_main
from ck_mlperf.models.convert import convert
from ck_mlperf.tensorrt.build import build_plan
from ck_mlperf.tensorrt.plan_file import read_sidecar
from ck_mlperf.tensorrt.request import BuildRequest


def main() -> None:
    model, folder = map(Path, sys.argv[1:3])
    precision = sys.argv[3] if len(sys.argv) > 3 else "fp16"
    folder.mkdir(parents=True, exist_ok=True)
    converted, plan = folder / "model.onnx", folder / "model.plan"
    convert(model, converted, precision, input_kind="native")
    build_plan(BuildRequest(converted, plan, precision, max_batch=32))
    key = read_sidecar(plan).key
    print(f"{plan}: {key.precision}, up to {key.max_batch} images, {key.flavour} {key.version}")


run_main(main)
