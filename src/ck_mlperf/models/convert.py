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
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import hash_file, sync_folder, write_file
from ck_mlperf.models.compose import INPUT_KINDS, OUTPUT_KINDS, check_size, compose, read_network
from ck_mlperf.models.recipe import InputSpec, ModelRecipe, OutputSpec, load_model_recipe

if TYPE_CHECKING:
    import onnx

    from ck_mlperf.images.preprocess import PreprocessedSet

PRECISIONS = ("fp32", "fp16", "int8")
# As many as MLPerf's lists of calibration images have.
DEFAULT_CALIBRATION_COUNT = 500


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
    calibration: for int8 the folder of a preprocessed set, made as the source's recipe says;
    calibration_count: how many of its images, the first ones; default: all, at most 500.
    The same source, images and libraries give the same bytes.
    Raises UserError where the source is no model that can be converted so, and where the
    calibration images are missing or of another recipe.
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
    images, described = None, None
    if precision == "int8":
        images, described = _open_calibration(recipe, calibration, calibration_count)
    elif calibration is not None or calibration_count is not None:
        raise UserError(f"calibration is for int8, not for {precision}. Leave it out")
    digest = hash_file(source)
    model = _convert_network(source, recipe, precision, images, show_progress)
    entry = compose(source, model, recipe, input_kind, output_kind)
    try:
        check_size(output, model.ByteSize())
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise UserError(f"{source}: cannot be converted, its graph is not valid: {error}") from None
    except onnx.shape_inference.InferenceError as error:
        raise UserError(
            f"{source}: cannot be converted, its shapes contradict each other: {error}"
        ) from None
    made = _describe_result(recipe, entry, output_kind)
    made = dataclasses.replace(
        made,
        conversion={
            "source_sha256": digest,
            "precision": precision,
            "input": input_kind,
            "output": output_kind,
            "calibration": described,
            "libraries": _list_libraries(),
        },
    )
    _write(output, model, made)
    return made


def _open_calibration(
    recipe: ModelRecipe, folder: Path | None, count: int | None
) -> tuple[Any, dict[str, Any]]:
    """The images to calibrate on, uint8 [n, side, side, 3], and what the recipe says of them."""
    from ck_mlperf.images.preprocess import load_preprocessed
    from ck_mlperf.models.precision import CALIBRATION_METHOD

    wanted = f"images of {recipe.dataset}, preprocessed with {' '.join(recipe.image.tags())}"
    if folder is None:
        raise UserError(
            f"int8: calibration needs {wanted}. Give the folder of such a set with --calibration "
            "(python -m ck_mlperf.images.preprocess makes one)"
        )
    try:
        found = load_preprocessed(folder, verify=True)
    except UserError as error:
        raise UserError(f"int8: calibration needs {wanted}. {error}") from None
    _check_calibration(recipe, folder, found, wanted)
    available = len(found.images)
    if count is not None and not 1 <= count <= available:
        raise UserError(
            f"int8: calibration needs 1 to {available} images, which {folder} has, not {count}"
        )
    count = count or min(available, DEFAULT_CALIBRATION_COUNT)
    described = {
        "images_sha256": found.manifest["images_sha256"],
        "count": count,
        "method": CALIBRATION_METHOD,
    }
    return found.images[:count], described


def _check_calibration(
    recipe: ModelRecipe, folder: Path, found: PreprocessedSet, wanted: str
) -> None:
    differences = [
        f"{key} is {has!r}, not {wants!r}"
        for key, has, wants in (
            ("dataset", found.manifest["dataset"], recipe.dataset),
            *(
                (key, found.recipe.to_dict()[key], value)
                for key, value in recipe.image.to_dict().items()
            ),
        )
        if has != wants
    ]
    if not len(found.images):
        differences.append("it is empty")
    if differences:
        raise UserError(
            f"int8: calibration needs {wanted}. {folder} is another set: {', '.join(differences)}. "
            "Preprocess the calibration images so"
        )


def _convert_network(
    source: Path, recipe: ModelRecipe, precision: str, images: Any, show_progress: bool
) -> onnx.ModelProto:
    model = read_network(source, recipe)
    if precision == "fp32":
        return model
    from ck_mlperf.models.precision import use_float16, use_int8

    if precision == "fp16":
        return use_float16(source, model)
    return use_int8(source, model, recipe, images, show_progress)


def _describe_result(recipe: ModelRecipe, entry: InputSpec, output_kind: str) -> ModelRecipe:
    made = dataclasses.replace(recipe, input=entry, output=OutputSpec(output_kind, output_kind))
    if entry.dtype != "uint8":
        return made
    return dataclasses.replace(made, mean=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0))


def _list_libraries() -> dict[str, str]:
    from importlib.metadata import version

    import onnx

    return {"onnx": onnx.__version__, "onnxruntime": version("onnxruntime")}


def _write(output: Path, model: onnx.ModelProto, recipe: ModelRecipe) -> None:
    """Write recipe and model. Where that breaks off there is no model, or one with its recipe."""
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
    add("--precision", choices=PRECISIONS, required=True)
    add("--input", choices=INPUT_KINDS, default="uint8", help="default %(default)s")
    add("--output-kind", choices=OUTPUT_KINDS, default="class", help="default %(default)s")
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
