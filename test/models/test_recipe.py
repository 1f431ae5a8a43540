"""A model's recipe: from its JSON file and its ONNX file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file
from ck_mlperf.images.dataset import DATASET_CLASSES
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.models.model_file import is_in_state
from ck_mlperf.models.recipe import ModelRecipe, load_model_recipe, normalise

from ..builders.tiny_model import REST, make_onnx, write_recipe


def test_what_the_onnx_file_says_need_not_be_in_the_json(model):
    recipe = load_model_recipe(model)
    assert recipe.to_dict() == {
        "format": 1,
        "name": "tiny",
        "dataset": "imagenet",
        "input": {"name": "images", "layout": "NCHW", "dtype": "float32"},
        "image": ImageRecipe(side=8).to_dict(),
        "mean": [1, 2, 3],
        "scale": [0.5, 0.25, 2],
        "output": {"name": "scores", "kind": "scores"},
        "classes": 1000,
        "labels_offset": 0,
        "max_batch": None,
        "weights": "trained",
        "source_md5": hash_file(model, "md5"),
    }


def test_a_complete_recipe_loads_to_itself(model):
    recipe = load_model_recipe(model)
    model.with_suffix(".json").write_text(json.dumps(recipe.to_dict()))
    assert load_model_recipe(model) == recipe


def test_how_a_file_was_converted_is_kept(model):
    conversion = {
        "source_sha256": "0" * 64,
        "calibration": {"count": 3},
        "libraries": {"onnx": "1"},
    }
    write_recipe(model, conversion=conversion)
    recipe = load_model_recipe(model)
    assert recipe.conversion == conversion
    assert list(recipe.to_dict())[-1] == "conversion"
    assert recipe.to_dict()["conversion"] == conversion
    assert ModelRecipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    model.with_suffix(".json").write_text(json.dumps(recipe.to_dict()))
    assert load_model_recipe(model) == recipe


def test_no_conversion_is_not_written(model):
    (path := model.with_suffix(".json")).write_text(json.dumps(REST | {"conversion": None}))
    recipe = load_model_recipe(model)
    assert recipe.conversion is None
    assert "conversion" not in recipe.to_dict()
    path.unlink()
    with pytest.raises(UserError) as error:
        load_model_recipe(model)
    assert '"conversion"' not in str(error.value)


@pytest.mark.parametrize(("classes", "offset"), [(1000, 0), (1001, 1)])
def test_both_conventions_of_classes(tmp_path, classes, offset):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = make_onnx(tmp_path / "tiny.onnx", classes=classes, more_outputs=("best",))
    write_recipe(path)
    recipe = load_model_recipe(path)
    assert (recipe.output.name, recipe.classes, recipe.labels_offset) == ("scores", classes, offset)
    # The class that the network finds best, less the offset, is the label.
    images = np.full((1, 8, 8, 3), 200, np.uint8)
    session = onnxruntime.InferenceSession(path)
    scores, best = session.run(["scores", "best"], {"images": normalise(images, recipe)})
    assert scores.argmax() == best[0]
    assert 0 <= best[0] - offset < DATASET_CLASSES["imagenet"]


def test_an_output_that_is_the_class(tmp_path):
    path = make_onnx(tmp_path / "tiny.onnx", classes=1001, more_outputs=("best",))
    write_recipe(path, output={"name": "best"}, classes=1001)
    recipe = load_model_recipe(path)
    assert (recipe.output.kind, recipe.labels_offset) == ("class", 1)
    write_recipe(path, output={"name": "best"})
    with pytest.raises(UserError, match="does not say dataset, classes, labels_offset"):
        load_model_recipe(path)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("input", {"name": "image"}, "input.name"),
        ("input", {"layout": "NHWC"}, "input.layout"),
        ("input", {"dtype": "float16"}, "input.dtype"),
        ("image", REST["image"] | {"side": 224}, "image.side"),
        ("output", {"kind": "class"}, "output.kind"),
        ("classes", 1001, "classes"),
        ("labels_offset", 1, "labels_offset"),
    ],
)
def test_a_contradiction_names_both_files(model, key, value, told):
    write_recipe(model, **{key: value})
    with pytest.raises(UserError, match=rf"tiny\.json says {told} = .*tiny\.onnx says"):
        load_model_recipe(model)


def test_a_fixed_batch_cannot_be_changed(tmp_path):
    path = make_onnx(tmp_path / "tiny.onnx", (1, 3, 8, 8))
    write_recipe(path, max_batch=32)
    with pytest.raises(UserError, match="max_batch = 32"):
        load_model_recipe(path)


def test_what_is_missing_is_listed_with_a_template(model):
    model.with_suffix(".json").unlink()
    with pytest.raises(UserError) as error:
        load_model_recipe(model)
    text = str(error.value)
    assert "image.crop, image.interpolation, image.channels, mean, scale" in text
    template = json.loads(text[text.index("{") :])
    assert template["mean"] == "?"
    assert template["input"]["name"] == "images"
    # Completed, it is accepted.
    template |= {"mean": [0, 0, 0], "scale": [1, 1, 1]}
    template["image"] |= REST["image"]
    model.with_suffix(".json").write_text(json.dumps(template))
    assert load_model_recipe(model).mean == (0, 0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": True},
        {"dataset": "cifar"},
        {"mean": [1, 2]},
        {"mean": 0},
        {"mean": [1, 2, "3"]},
        {"mean": [1, 2, float("nan")]},
        {"mean": [1, 2, 10**400]},
        {"mean": [1, 2, -1e39]},
        {"scale": [1, 0, 1]},
        {"scale": [1, 1, float("inf")]},
        {"classes": 0},
        {"max_batch": 0},
        {"max_batch": "32"},
        {"weights": "good"},
        {"name": ""},
        {"name": "../../../.."},
        {"name": ".."},
        {"name": "$(touch owned)"},
        {"name": "a,b"},
        {"name": "a\n"},
        {"name": "\x1b[2J"},
        {"name": "a" * 65},
        {"name": 1},
        {"means": [1, 2, 3]},
        {"image": 224},
        {"image": REST["image"] | {"crop": 2}},
        {"image": REST["image"] | {"resize": 256}},
        {"image": REST["image"] | {"interpolation": []}},
        {"input": {"layout": "NCWH"}},
        {"conversion": "fp16"},
        {"conversion": ["fp16"]},
    ],
)
def test_a_bad_value_is_an_error_that_names_the_json(model, changes):
    write_recipe(model, **changes)
    with pytest.raises(UserError, match=r"tiny\.json"):
        load_model_recipe(model)


def test_a_file_whose_name_cannot_be_the_models_needs_another(model):
    odd = model.rename(model.with_name("tiny $(touch owned).onnx"))
    write_recipe(odd)
    stated = json.loads(odd.with_suffix(".json").read_text())
    with pytest.raises(UserError, match=r'(?s)tiny \$\(touch.*write a "name" into'):
        load_model_recipe(odd)
    odd.with_suffix(".json").write_text(json.dumps(stated | {"name": "t" * 64}))
    assert load_model_recipe(odd).name == "t" * 64


@pytest.mark.parametrize("text", ["", "{", "[]", "mean: 3", "\x00"])
def test_a_json_that_is_none(model, text):
    model.with_suffix(".json").write_text(text)
    with pytest.raises(UserError, match=r"tiny\.json"):
        load_model_recipe(model)


def test_digits(tmp_path):
    path = make_onnx(tmp_path / "tiny.onnx", classes=10)
    write_recipe(path)
    with pytest.raises(UserError, match="does not say dataset"):
        load_model_recipe(path)
    write_recipe(path, dataset="digits")
    assert load_model_recipe(path).labels_offset == 0
    write_recipe(path, dataset="imagenet")
    with pytest.raises(UserError, match="has 10 classes, the data set imagenet 1000 labels"):
        load_model_recipe(path)


def test_what_1_stands_for_belongs_to_int8(tmp_path):
    path = make_onnx(tmp_path / "tiny.onnx", dtype=TensorProto.INT8)
    write_recipe(path)
    with pytest.raises(UserError, match=r"tiny\.json: input\.step.* Add it for int8"):
        load_model_recipe(path)
    write_recipe(path, input={"step": 0.5})
    recipe = load_model_recipe(path)
    assert (recipe.input.dtype, recipe.input.step) == ("int8", 0.5)
    assert recipe.to_dict()["input"]["step"] == 0.5
    assert ModelRecipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    for step in (0, -1, "1", True, float("inf"), None):
        write_recipe(path, input={"step": step})
        with pytest.raises(UserError, match=r"tiny\.json.*input\.step.*a number above 0"):
            load_model_recipe(path)


@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16", "UINT8"])
def test_other_types_have_no_step(tmp_path, dtype):
    path = make_onnx(tmp_path / "tiny.onnx", dtype=TensorProto.DataType.Value(dtype))
    plain = {"mean": [0, 0, 0], "scale": [1, 1, 1]}
    write_recipe(path, input={"step": 0.5}, **plain)
    with pytest.raises(UserError, match=r"tiny\.json: input\.step.*remove it for another type"):
        load_model_recipe(path)
    write_recipe(path, **plain)
    assert "step" not in load_model_recipe(path).to_dict()["input"]


def test_the_command_prints_the_recipe(model, run_module):
    done = run_module("models.recipe", model)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed.pop("sha256") == hash_file(model)
    assert is_in_state(model, printed.pop("files"))
    assert printed == load_model_recipe(model).to_dict()


def test_the_command_refuses_with_one_message(tmp_path, run_here):
    (tmp_path / "page.onnx").write_text("<html>")
    done = run_here("models.recipe", tmp_path / "page.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
