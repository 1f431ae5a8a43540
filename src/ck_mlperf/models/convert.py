"""Convert an ONNX classifier to what engines run best: uint8 images in, the class out.

The result is one ONNX file in fp32, fp16 or int8, with its recipe beside it (NEW.onnx, NEW.json).
Preprocessing and the choice of the class are part of the graph, and so are the types.

`python -m ck_mlperf.models.convert --source MODEL.onnx --output NEW.onnx --precision fp16`
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import sync_folder, write_file
from ck_mlperf.models.compose import compose
from ck_mlperf.models.model_file import hash_model, is_in_state
from ck_mlperf.models.network import check_size, read_network
from ck_mlperf.models.onnx_facts import find_files
from ck_mlperf.models.precisions import FILE_INPUTS, FILE_PRECISIONS, OUTPUTS
from ck_mlperf.models.recipe import ModelRecipe, OutputSpec, load_model_recipe

if TYPE_CHECKING:
    import onnx


def convert(
    source: Path,
    output: Path,
    precision: str,
    input_kind: str = "uint8",
    output_kind: str = "class",
    calibration: Path | None = None,
    calibration_count: int | None = None,
    show_progress: bool = False,
) -> ModelRecipe:
    """Convert `source` to `output`, and write its recipe beside it. Returns that recipe.

    precision: 'fp32', 'fp16' or 'int8'. input_kind, output_kind: see `compose.compose`.
    calibration: for int8, the folder of a set preprocessed as the source's recipe says.
    calibration_count: how many of its images to use, from the first; default: all, at most 500.
    The same source, images and libraries give the same bytes.
    Raises UserError where the source cannot be converted like this, and where the calibration
    images are missing or were preprocessed with another recipe.
    """
    import onnx

    if output.suffix != ".onnx":
        raise UserError(f"{output}: want a name that ends in .onnx")
    if source.resolve() == output.resolve():
        raise UserError(f"{output}: the output cannot be the source. Give another name")
    recipe = load_model_recipe(source)
    if recipe.conversion is not None:
        raise UserError(
            f"{source} is a converted file itself. Convert the file that it was made from (sha256 "
            f"{recipe.conversion.get('source_sha256')})"
        )
    external, state = find_files(source)
    digest = hash_model(source, external)
    described = None
    if precision == "int8":
        from ck_mlperf.models.calibrate import load_calibration
        from ck_mlperf.models.int8 import use_int8

        images, described = load_calibration(recipe, calibration, calibration_count)
        model = use_int8(source, read_network(source, recipe), recipe, images, show_progress)
    elif calibration is not None or calibration_count is not None:
        raise UserError(f"calibration is for int8, not for {precision}. Leave it out")
    elif precision == "fp16":
        from ck_mlperf.models.float16 import use_float16

        model = use_float16(source, read_network(source, recipe))
    else:
        model = read_network(source, recipe)
    entry = compose(source, model, recipe, input_kind, output_kind)
    if not is_in_state(source, state):
        raise UserError(f"{source} has changed while it was converted. Convert it again")
    try:
        check_size(output, model.ByteSize())
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise UserError(f"{source}: cannot be converted, its graph is not valid: {error}") from None
    except onnx.shape_inference.InferenceError as error:
        raise UserError(
            f"{source}: cannot be converted, its shapes contradict each other: {error}"
        ) from None
    made = dataclasses.replace(
        recipe,
        input=entry,
        output=OutputSpec(output_kind, output_kind),
        conversion={
            "source_sha256": digest,
            "precision": precision,
            "input": input_kind,
            "output": output_kind,
            "calibration": described,
            "libraries": _list_libraries(),
        },
    )
    if entry.dtype == "uint8":  # the graph itself has mean and scale now
        made = dataclasses.replace(made, mean=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0))
    _write(output, model, made)
    return made


def _list_libraries() -> dict[str, str]:
    from importlib.metadata import version

    import onnx

    return {"onnx": onnx.__version__, "onnxruntime": version("onnxruntime")}


def _write(output: Path, model: onnx.ModelProto, recipe: ModelRecipe) -> None:
    """Write recipe and model, so that no interruption leaves a model with another's recipe."""
    output.parent.mkdir(parents=True, exist_ok=True)
    content = model.SerializeToString(deterministic=True)
    if output.exists():
        output.unlink()
        sync_folder(output.parent)
    text = json.dumps(recipe.to_dict(), indent=2) + "\n"
    write_file(output.with_suffix(".json"), text)
    write_file(output, content)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ck_mlperf.models.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--source", type=Path, required=True, metavar="MODEL.onnx")
    add("--output", type=Path, required=True, metavar="NEW.onnx")
    add("--precision", choices=FILE_PRECISIONS, required=True)
    add("--input", choices=FILE_INPUTS, default="uint8", help="default %(default)s")
    add("--output-kind", choices=OUTPUTS, default="class", help="default %(default)s")
    add("--calibration", type=Path, metavar="FOLDER", help="preprocessed images, for int8")
    add("--calibration-count", type=int, metavar="N", help="only the first N of them")
    options = parser.parse_args()
    made = convert(
        options.source,
        options.output,
        options.precision,
        options.input,
        options.output_kind,
        options.calibration,
        options.calibration_count,
        show_progress=True,
    )
    print(
        f"{options.output}: {made.name} in {options.precision}, {made.input.dtype} in, "
        f"{made.output.kind} out"
    )


if __name__ == "__main__":
    run_main(main)
