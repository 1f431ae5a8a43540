from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file
from ck_mlperf.images.dataset import DATASET_CLASSES
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.models.recipe import (
    ModelRecipe,
    load_model_recipe,
    normalise,
    tabulate_pixels,
)

# What no ONNX file says.
REST: dict[str, Any] = {
    "image": {"crop": 0.875, "interpolation": "area", "channels": "rgb"},
    "mean": [1, 2, 3],
    "scale": [0.5, 0.25, 2],
}


def make_onnx(
    path: Path,
    shape: tuple[Any, ...] | None = ("N", 3, 8, 8),
    classes: int | str = 1000,
    dtype: int = TensorProto.FLOAT,
    more_outputs: tuple[str, ...] = (),
    external: str | None = None,
) -> Path:
    """A classifier: the mean colour times a matrix. With 'class' the best class is an output."""
    count = classes if isinstance(classes, int) else 1000
    weights = np.random.default_rng(0).normal(size=(3, count)).astype(np.float32)
    tensor = numpy_helper.from_array(weights, "weights")
    if external is not None:
        onnx.external_data_helper.set_external_data(tensor, external)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["colour"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["scores"]),
    ]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes])]
    for name in more_outputs:
        nodes.append(helper.make_node("ArgMax", ["scores"], [name], axis=1, keepdims=0))
        outputs.insert(0, helper.make_tensor_value_info(name, TensorProto.INT64, ["N"]))
    inputs = [helper.make_tensor_value_info("images", dtype, shape)]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [tensor])
    opsets = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def write_recipe(path: Path, **changes: Any) -> None:
    data = REST | changes
    path.with_suffix(".json").write_text(
        json.dumps({key: value for key, value in data.items() if value is not None})
    )


@pytest.fixture
def model(tmp_path) -> Path:
    path = make_onnx(tmp_path / "tiny.onnx")
    write_recipe(path)
    return path


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
    ("shape", "layout", "max_batch"),
    [
        (("N", 3, 8, 8), "NCHW", None),
        (("N", 8, 8, 3), "NHWC", None),
        ((1, 3, 8, 8), "NCHW", 1),
        ((16, 8, 8, 3), "NHWC", 16),
        (("N", 3, "H", "W"), "NCHW", None),
        (("N", "H", "W", 3), "NHWC", None),
        ((0, 3, 8, 8), "NCHW", None),
    ],
)
def test_layout_side_and_batch_follow_from_the_shape(tmp_path, shape, layout, max_batch):
    path = make_onnx(tmp_path / "tiny.onnx", shape)
    is_open = "H" in shape
    write_recipe(path, image=REST["image"] | ({"side": 8} if is_open else {}))
    recipe = load_model_recipe(path)
    assert (recipe.input.layout, recipe.max_batch, recipe.image.side) == (layout, max_batch, 8)


@pytest.mark.parametrize("shape", [None, ("N", "C", "H", "W"), ("N", 3, "H", 3)])
def test_a_shape_that_leaves_the_layout_open(tmp_path, shape):
    path = make_onnx(tmp_path / "tiny.onnx", shape)
    write_recipe(path, image=REST["image"] | {"side": 8})
    with pytest.raises(UserError, match=r"does not say input\.layout"):
        load_model_recipe(path)
    write_recipe(path, image=REST["image"] | {"side": 8}, input={"layout": "NHWC"})
    assert load_model_recipe(path).input.layout == "NHWC"


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        (("N", 1, 8, 8), "no axis of 3 colours"),
        (("N", 3, 8), "four axes"),
        (("N", 3, 8, 9), "square"),
    ],
)
def test_what_is_no_classifier_of_square_colour_images(tmp_path, shape, what):
    path = make_onnx(tmp_path / "tiny.onnx", shape)
    write_recipe(path)
    with pytest.raises(UserError, match=what):
        load_model_recipe(path)


def test_an_input_of_another_type(tmp_path):
    path = make_onnx(tmp_path / "tiny.onnx", dtype=TensorProto.INT64)
    with pytest.raises(UserError, match="input images is INT64"):
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


def test_an_output_that_is_not_there(model):
    write_recipe(model, output={"name": "prob"})
    with pytest.raises(UserError, match=r"outputs scores: output\.name = 'prob' is not there"):
        load_model_recipe(model)


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
        {"scale": [1, 0, 1]},
        {"scale": [1, 1, float("inf")]},
        {"classes": 0},
        {"max_batch": 0},
        {"max_batch": "32"},
        {"weights": "good"},
        {"name": ""},
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


# ---- files that are no model


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (b"\n<!DOCTYPE html>\n<html>", "an HTML page"),
        (b"<html><body>404</body></html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"PK\x03\x04" + bytes(100), "zip archive"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"ptrt" + bytes(100), "TensorRT plan"),
        (b'{"format": 1}', "JSON"),
        (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite"),
        (b"\x00" * 100, "no ONNX"),
        (b"just text, for the sake of it", "no ONNX"),
    ],
)
def test_a_file_that_is_no_onnx(tmp_path, content, what):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"bad\.onnx: .*{what}"):
        load_model_recipe(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_an_onnx_file_that_is_cut_off(model, share):
    data = model.read_bytes()
    model.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"tiny\.onnx"):
        load_model_recipe(model)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_model_recipe(tmp_path / "none.onnx")
    with pytest.raises(UserError, match="no such file"):
        load_model_recipe(tmp_path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "link/weights.bin"])
def test_weights_outside_the_folder_are_refused(tmp_path, location):
    (tmp_path / "weights.bin").write_bytes(bytes(12000))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    path = make_onnx(folder / "tiny.onnx", external=location)
    write_recipe(path)
    with pytest.raises(UserError, match="outside its own folder"):
        load_model_recipe(path)


def test_weights_beside_the_model(tmp_path):
    path = make_onnx(tmp_path / "tiny.onnx", external="weights.bin")
    write_recipe(path)
    with pytest.raises(UserError, match="which is not beside it"):
        load_model_recipe(path)
    (tmp_path / "weights.bin").write_bytes(bytes(12000))
    assert load_model_recipe(path).classes == 1000


# ---- normalise


def make_recipe(tmp_path: Path, dtype: int, layout: str, **changes: Any) -> Any:
    shape = ("N", 3, 8, 8) if layout == "NCHW" else ("N", 8, 8, 3)
    path = make_onnx(tmp_path / "tiny.onnx", shape, dtype=dtype)
    write_recipe(path, **changes)
    return load_model_recipe(path)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("dtype", "name", "tolerance"),
    [(TensorProto.FLOAT, "float32", 1e-6), (TensorProto.FLOAT16, "float16", 1e-3)],
)
def test_normalise(tmp_path, layout, dtype, name, tolerance):
    recipe = make_recipe(tmp_path, dtype, layout)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    expected = (images.astype(np.float64) - [1, 2, 3]) * [0.5, 0.25, 2]
    if layout == "NCHW":
        expected = expected.transpose(0, 3, 1, 2)
    made = normalise(images, recipe)
    assert (made.dtype, made.shape, made.flags.c_contiguous) == (name, expected.shape, True)
    np.testing.assert_allclose(made, expected, rtol=tolerance)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_normalise_to_uint8_keeps_the_pixels(tmp_path, layout):
    with pytest.raises(UserError, match="takes pixels as they are"):
        make_recipe(tmp_path, TensorProto.UINT8, layout)
    recipe = make_recipe(tmp_path, TensorProto.UINT8, layout, mean=[0, 0, 0], scale=[1, 1, 1])
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    expected = images.transpose(0, 3, 1, 2) if layout == "NCHW" else images
    made = normalise(images, recipe)
    assert np.array_equal(made, expected)
    assert made.flags.c_contiguous


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_normalise_to_int8_is_what_onnx_quantises(tmp_path, layout):
    recipe = make_recipe(tmp_path, TensorProto.INT8, layout, input={"step": 0.75})
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    values = (images.astype(np.float64) - [1, 2, 3]) * [0.5, 0.25, 2] / 0.75
    if layout == "NCHW":
        values = values.transpose(0, 3, 1, 2)
    assert values.max() > 128  # what is beyond int8 is its last value
    made = normalise(images, recipe)
    assert (made.dtype, made.shape, made.flags.c_contiguous) == (np.int8, values.shape, True)
    assert np.array_equal(made, values.round().clip(-128, 127))


def test_normalise_to_int8_rounds_half_to_even_and_saturates(tmp_path):
    changes = {"mean": [4, 5, 0], "scale": [1, -100, 1], "input": {"step": 2}}
    recipe = make_recipe(tmp_path, TensorProto.INT8, "NHWC", **changes)
    images = np.zeros((1, 8, 8, 3), np.uint8)
    images[0, 0, :, 0] = [1, 2, 3, 4, 5, 6, 7, 9]  # -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2.5
    images[0, 0, :, 1] = [0, 2, 4, 5, 6, 7, 8, 255]
    images[0, 0, :, 2] = [0, 1, 3, 5, 252, 253, 254, 255]
    made = normalise(images, recipe)[0, 0]
    assert made[:, 0].tolist() == [-2, -1, 0, 0, 0, 1, 2, 2]
    assert made[:, 1].tolist() == [127, 127, 50, 0, -50, -100, -128, -128]
    assert made[:, 2].tolist() == [0, 0, 2, 2, 126, 126, 127, 127]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16", "INT8", "UINT8"])
def test_a_table_of_what_normalise_makes_of_each_pixel_value(tmp_path, layout, dtype):
    changes: dict[str, Any] = {"input": {"step": 0.75}} if dtype == "INT8" else {}
    if dtype == "UINT8":
        changes = {"mean": [0, 0, 0], "scale": [1, 1, 1]}
    recipe = make_recipe(tmp_path, TensorProto.DataType.Value(dtype), layout, **changes)
    table = tabulate_pixels(recipe)
    assert (table.shape, table.dtype) == ((3, 256), np.dtype(recipe.input.dtype))
    assert table.flags.c_contiguous
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    made = normalise(images, recipe)
    planes = made if layout == "NCHW" else made.transpose(0, 3, 1, 2)
    for colour in range(3):
        assert np.array_equal(table[colour][images[..., colour]], planes[:, colour])


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


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 9, 8, 3), np.uint8), np.zeros((8, 8, 3))],
)
def test_normalise_takes_no_other_images(model, images):
    with pytest.raises(ValueError, match="want uint8"):
        normalise(images, load_model_recipe(model))


def test_normalise_of_no_images(model):
    assert normalise(np.empty((0, 8, 8, 3), np.uint8), load_model_recipe(model)).shape[0] == 0


# ---- the command


def test_the_command_prints_the_recipe(model, run_module):
    done = run_module("models.recipe", model)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed.pop("sha256") == hash_file(model)
    assert printed == load_model_recipe(model).to_dict()


def test_the_command_refuses_with_one_message(tmp_path, run_module):
    (tmp_path / "page.onnx").write_text("<html>")
    done = run_module("models.recipe", tmp_path / "page.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


# ---- real models


@pytest.mark.parametrize(
    ("file", "recipe", "expected"),
    [
        ("mobilenet_v1_1.0_224_quant.fp32.onnx", "mobilenet_v1_1.0_224", ("float32", None)),
        ("SqueezeNet_fp16.onnx", "SqueezeNet_fp16", ("float16", 1)),
    ],
)
def test_real_models_load(shared_data, repository, tmp_path, file, recipe, expected):
    path = tmp_path / f"{recipe}.onnx"
    path.symlink_to(shared_data / "models" / file)
    text = (repository / "test" / "data" / "recipes" / f"{recipe}.json").read_text()
    path.with_suffix(".json").write_text(text)
    loaded = load_model_recipe(path)
    assert (loaded.input.dtype, loaded.max_batch) == expected
    assert (loaded.classes, loaded.labels_offset, loaded.image.side) == (1000, 0, 224)


def test_a_real_model_has_its_accuracy(shared_data, repository, tmp_path):
    """SqueezeNet, from the JPEGs to the classes: 59.4% of these 500 images, as published there."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("PIL", reason="NOT RUN: the recipe needs Pillow")
    from ck_mlperf.images.preprocess import preprocess

    path = tmp_path / "SqueezeNet_fp16.onnx"
    path.symlink_to(shared_data / "models" / path.name)
    text = (repository / "test" / "data" / "recipes" / "SqueezeNet_fp16.json").read_text()
    path.with_suffix(".json").write_text(text)
    recipe = load_model_recipe(path)
    made = preprocess(shared_data / "imagenet-500", tmp_path / "set", recipe.image)
    session = onnxruntime.InferenceSession(path)
    tensor = normalise(made.images, recipe)
    classes = [
        session.run([recipe.output.name], {recipe.input.name: tensor[row : row + 1]})[0].argmax()
        for row in range(len(tensor))
    ]
    top1 = 100 * np.mean(np.array(classes) - recipe.labels_offset == made.labels)
    assert abs(top1 - 59.4) <= 0.6
