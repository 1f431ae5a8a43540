"""The conversion as a whole: its recipe, its files, its command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file
from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.preprocessed import PreprocessedSet
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.models import convert as module
from ck_mlperf.models.calibrate import CALIBRATION_METHOD
from ck_mlperf.models.convert import convert
from ck_mlperf.models.precisions import FILE_PRECISIONS
from ck_mlperf.models.recipe import load_model_recipe

from ..builders.digits import DIGITS_MODEL, make_digits
from ..builders.networks import CLASSES, FLOAT, SIDE, make_network, run, save_network

pytestmark = pytest.mark.slow  # nothing in it depends on the version of Python


def test_the_recipe_of_the_result(source, make, calibration):
    made = make(source, "int8", calibration_count=9)
    recipe = json.loads(made.with_suffix(".json").read_text())
    conversion = recipe.pop("conversion")
    assert recipe == {
        "format": 1,
        "name": "small",
        "dataset": "digits",
        "input": {"name": "images", "layout": "NHWC", "dtype": "uint8"},
        "image": ImageRecipe(SIDE, 1.0).to_dict(),
        "mean": [0, 0, 0],
        "scale": [1, 1, 1],
        "output": {"name": "class", "kind": "class"},
        "classes": CLASSES,
        "labels_offset": 0,
        "max_batch": None,
        "weights": "trained",
        "source_md5": hash_file(source, "md5"),
    }
    libraries = conversion.pop("libraries")
    assert libraries["onnx"] == onnx.__version__
    assert set(libraries) == {"onnx", "onnxruntime"}
    manifest = json.loads((calibration / "manifest.json").read_text())
    assert conversion == {
        "source_sha256": hash_file(source),
        "precision": "int8",
        "input": "uint8",
        "output": "class",
        "calibration": {
            "images_sha256": manifest["images_sha256"],
            "source_list_sha256": manifest["source_list_sha256"],
            "count": 9,
            "method": CALIBRATION_METHOD,
        },
    }


def test_the_model_keeps_its_own_input(source, make):
    recipe = load_model_recipe(make(source, "fp16", "fp32", "scores"))
    original = load_model_recipe(source)
    assert (recipe.input, recipe.mean, recipe.scale) == (
        original.input,
        original.mean,
        original.scale,
    )
    assert recipe.conversion is not None
    assert recipe.conversion["calibration"] is None


def test_a_converted_file_is_not_converted_again(source, make, tmp_path):
    made = make(source)
    with pytest.raises(UserError, match=rf"converted file itself.*{hash_file(source)}"):
        convert(made, tmp_path / "again.onnx", "fp32")


def test_shapes_that_contradict_each_other(tmp_path, make):
    network = make_network(outputs=(("scores", FLOAT, ["N", CLASSES + 1]),))
    source = save_network(tmp_path / "small.onnx", network, weights="random")
    with pytest.raises(UserError, match="cannot be converted, its shapes contradict each other"):
        make(source, "fp32", "uint8", "scores")


@pytest.mark.parametrize(
    ("name", "told"), [("small.onnx", "cannot be the source"), ("small.plan", r"ends in \.onnx")]
)
def test_a_bad_name_for_the_output(source, name, told):
    with pytest.raises(UserError, match=told):
        convert(source, source.parent / name, "fp32")


@pytest.mark.parametrize("wanted", FILE_PRECISIONS)
def test_the_same_again_is_the_same_to_the_byte(
    source, make, tmp_path, calibration, library_environment, wanted
):
    """Also in another process, which hashes names in another way."""
    output = tmp_path / "again.onnx"
    options = ["--calibration", calibration] if wanted == "int8" else []
    subprocess.run(
        [
            *(sys.executable, "-m", "ck_mlperf.models.convert", "--source", source),
            *("--output", output, "--precision", wanted, *options),
        ],
        env=library_environment | {"PYTHONHASHSEED": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    made = make(source, wanted)
    assert output.read_bytes() == made.read_bytes()
    assert output.with_suffix(".json").read_text() == made.with_suffix(".json").read_text()


@pytest.mark.parametrize("cut_off_at", ["model.json", "model.onnx"])
def test_an_interrupted_conversion_leaves_no_model(source, tmp_path, monkeypatch, cut_off_at):
    """The recipe goes first, and an earlier model goes before it: none has another's recipe."""
    output = tmp_path / "made" / "model.onnx"
    convert(source, output, "fp32")
    real = module.write_file

    def write(path: Path, data: str | bytes) -> None:
        if path.name == cut_off_at:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(module, "write_file", write)
    with pytest.raises(KeyboardInterrupt):
        convert(source, output, "fp16")
    assert [path.name for path in output.parent.iterdir()] == ["model.json"]


def test_a_refused_conversion_touches_nothing(source, tmp_path):
    output = tmp_path / "made" / "model.onnx"
    convert(source, output, "fp32")
    before = {path.name: path.read_bytes() for path in output.parent.iterdir()}
    with pytest.raises(UserError):
        convert(source, output, "int8")
    assert {path.name: path.read_bytes() for path in output.parent.iterdir()} == before


def test_the_command_is_quiet_without_a_terminal(source, tmp_path, calibration, run_module):
    output = tmp_path / "new" / "model.onnx"
    done = run_module(
        *("models.convert", "--source", source, "--output", output, "--precision", "int8"),
        *("--calibration", calibration, "--calibration-count", 4),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{output}: small in int8, uint8 in, class out\n"
    assert sorted(path.name for path in output.parent.iterdir()) == ["model.json", "model.onnx"]


def test_the_command_makes_native_input(source, tmp_path, calibration, run_here):
    output = tmp_path / "model.onnx"
    done = run_here(
        *("models.convert", "--source", source, "--output", output, "--precision", "int8"),
        *("--input", "native", "--calibration", calibration),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{output}: small in int8, int8 in, class out\n"
    described = json.loads(output.with_suffix(".json").read_text())["input"]
    assert described == load_model_recipe(output).to_dict()["input"]
    assert described["step"] > 0


def test_the_command_refuses_with_one_message(source, tmp_path, run_here):
    output = tmp_path / "new.onnx"
    done = run_here("models.convert", "--source", source, "--output", output, "--precision", "int8")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: int8: calibration needs")
    assert not output.exists()


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> PreprocessedSet:
    """The images that the digits network was not trained on."""
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder / "images")
    recipe = load_model_recipe(DIGITS_MODEL)
    return preprocess(folder / "images", folder / "set", recipe.image, dataset="digits")


@pytest.mark.parametrize(("wanted", "least"), [("fp32", 1.0), ("fp16", 0.995), ("int8", 0.99)])
def test_digits(digits, make, wanted, least):
    options = {}
    if wanted == "int8":
        options = {"calibration": Path(digits.images.filename).parent, "calibration_count": 50}
    made = make(DIGITS_MODEL, wanted, **options)
    assert load_model_recipe(made).name == "digits"
    expected = run(DIGITS_MODEL, digits.images).argmax(axis=1)
    assert (run(made, digits.images) == expected).mean() >= least
