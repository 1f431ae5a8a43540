"""Our plans against those that TensorRT builds from the float32 network, on an NVIDIA GPU.

`make bench-yardstick ARGS="--model MODEL.onnx --calibration FOLDER"`, with TensorRT 8.6, the last
one here that chooses types itself. int8: its own quantisation, with float16 allowed and the ranges
that our calibration gives for every tensor. fp16: its FP16 flag. Both have the class as output and
the input in the type of the plan, as ours have. Each plan runs alone (bench/plan_alone.py). Exits 1
if ours is slower than is allowed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from plan_alone import judge, make_images, make_plan, run_python, time_alone, time_latency

from ck_mlperf.images.preprocessed import load_preprocessed
from ck_mlperf.machine.gpus import find_gpus
from ck_mlperf.models.network import read_network
from ck_mlperf.models.recipe import InputSpec, ModelRecipe, load_model_recipe
from ck_mlperf.tensorrt.api import load_flavour
from ck_mlperf.tensorrt.api.interface import Flavour
from ck_mlperf.tensorrt.key import PlanKey
from ck_mlperf.tensorrt.plan_file import Sidecar, read_sidecar, write_plan
from ck_mlperf.tensorrt.progress import Progress

LEAST_RATIOS = {"int8": 0.98, "fp16": 1.0}
INT8_MOST = 127
# Up to this batch latencies are compared, above it rates.
LATENCY_UP_TO = 8


def measure_ranges(model: Path, recipe: ModelRecipe, calibration: Path) -> dict[str, float]:
    """The largest absolute value that int8 should hold, of every tensor of the network."""
    from ck_mlperf.models.calibrate import calibrate

    network = read_network(model, recipe)
    tensors = [recipe.input.name]
    for node in network.graph.node:
        tensors += node.output if node.op_type not in ("Constant", "Shape") else []
    images = load_preprocessed(calibration).images
    statistics = calibrate(model, network, recipe, tensors, images, show_progress=True)
    return {name: found.scale * INT8_MOST for name, found in statistics.items()}


def build_own(
    flavour: Flavour, source: Path, ours: Path, precision: str, ranges: dict[str, float]
) -> Path:
    """TensorRT's own plan of the float32 network, with the sidecar that our engine needs."""
    import tensorrt

    key = read_sidecar(ours).key
    output = ours.with_name(f"own-{ours.name}")
    model = ours.with_name(f"{source.stem}-fp32.onnx")
    if not model.exists():
        run_python(
            *("-m", "ck_mlperf.models.convert", "--source", source, "--output", model),
            *("--precision", "fp32", "--input", "native"),
        )
    build: Any = flavour.parse(model.read_bytes(), model)
    network = build.network
    entry = network.get_input(0)
    if precision == "int8":
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            for output_index in range(layer.num_outputs):
                tensor = layer.get_output(output_index)
                if tensor.name in ranges:
                    tensor.dynamic_range = (-ranges[tensor.name], ranges[tensor.name])
        entry.dynamic_range = (-ranges[entry.name], ranges[entry.name])
    entry.dtype = tensorrt.DataType.INT8 if precision == "int8" else tensorrt.DataType.HALF
    build.configure(key)
    content = build.run(Progress(output.name, None))
    write_own(output, content, flavour, model, key, ranges[entry.name] / INT8_MOST)
    return output


def write_own(
    output: Path, content: bytes, flavour: Flavour, model: Path, key: PlanKey, step: float
) -> None:
    """Write the plan as one whose input is prepared when the samples are loaded."""
    recipe = load_model_recipe(model)
    dtype, named = ("int8", "int8") if key.precision == "int8" else ("float16", "fp16")
    entry = InputSpec(
        recipe.input.name, recipe.input.layout, dtype, step if dtype == "int8" else None
    )
    recipe = dataclasses.replace(recipe, input=entry, max_batch=key.max_batch)
    tensors = flavour.load_plan(content).tensors
    sidecar = Sidecar.of(dataclasses.replace(key, input=named), content, recipe, tensors, {})
    write_plan(output, content, sidecar)


def compare(text: str, ours: Path, own: Path, images: np.ndarray, batch: int) -> bool:
    """Whether ours is as fast. Both are measured twice, in turn."""
    if batch <= LATENCY_UP_TO:
        times = [time_latency(plan, images, batch)[0] for plan in (ours, own, own, ours)]
        what, figures = "ms", [times[0] + times[3], times[1] + times[2]]
        ratio = figures[1] / figures[0]
    else:
        rates = [
            max(time_alone(plan, 0, images, batch).values()) for plan in (ours, own, own, ours)
        ]
        what, figures = "samples/s", [rates[0] + rates[3], rates[1] + rates[2]]
        ratio = figures[0] / figures[1]
    print(f"  {text}: {figures[0] / 2:,.4g} {what}, TensorRT's own {figures[1] / 2:,.4g} {what}")
    least = LEAST_RATIOS[text.partition(":")[0]]
    return judge(
        f"{text}, ours over TensorRT's", f"{ratio:.3f}", f"at least {least}", ratio >= least
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-yardstick", description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="ONNX file with its recipe")
    add("--calibration", type=Path, required=True, help="preprocessed images")
    add("--images", type=Path, help="preprocessed images to classify (random ones)")
    plans = ["int8:256", "int8:2048", "int8:8", "int8:1", "fp16:256"]
    add("--plans", nargs="+", default=plans, metavar="PRECISION:BATCH", help=" ".join(plans))
    add("--folder", type=Path, required=True, help="for models and plans")
    options = parser.parse_args()
    options.input = "uint8"
    flavour = load_flavour("tensorrt")
    if flavour.is_strongly_typed:
        raise SystemExit(f"{flavour.title} uses the types of the file: install 8.6")
    print(f"{flavour.title} on {', '.join(map(str, find_gpus()))}")
    options.folder.mkdir(parents=True, exist_ok=True)
    kept = options.folder / "ranges.json"
    if not kept.exists():
        recipe = load_model_recipe(options.model)
        kept.write_text(json.dumps(measure_ranges(options.model, recipe, options.calibration)))
    ranges = json.loads(kept.read_text())
    images = make_images(options.images)
    verdicts = []
    for text in options.plans:
        ours, batch = make_plan(text, options)
        own = build_own(flavour, options.model, ours, text.partition(":")[0], ranges)
        verdicts.append(compare(text, ours, own, images, batch))
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
