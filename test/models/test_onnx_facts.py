"""What an ONNX file says about the classifier in it, and files that are none."""

from __future__ import annotations

import json

import onnx
import pytest
from onnx import TensorProto, helper

from ck_mlperf.common.errors import UserError
from ck_mlperf.models.recipe import load_model_recipe

from ..builders.tiny_model import REST, make_onnx, write_recipe


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


def test_a_model_of_two_inputs(tmp_path):
    path = make_onnx(tmp_path / "tiny.onnx")
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    onnx.save(model, path)
    with pytest.raises(
        UserError, match="want a model of one input, the images; inputs: images, mask"
    ):
        load_model_recipe(path)


def test_an_input_of_another_type(tmp_path):
    path = make_onnx(tmp_path / "tiny.onnx", dtype=TensorProto.INT64)
    with pytest.raises(UserError, match="input images is INT64"):
        load_model_recipe(path)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_precision_of_a_file_that_came_so(tmp_path, precision):
    path = make_onnx(tmp_path / "tiny.onnx", ("N", 3, 8, 8))
    write_recipe(path)
    model = onnx.load(path)
    if precision == "fp16":
        half = helper.make_tensor("half", TensorProto.FLOAT16, [9999], [0] * 9999)
        model.graph.initializer.append(half)
    if precision == "int8":
        tensor = model.graph.output[0].name
        model.graph.node.append(helper.make_node("QuantizeLinear", [tensor, "s"], ["q"]))
    onnx.save(model, path)
    recipe = load_model_recipe(path)
    assert recipe.file_precision == precision
    assert ("precision" in recipe.to_dict()) == (precision != "fp32")
    path.with_suffix(".json").write_text(json.dumps(recipe.to_dict()))
    assert load_model_recipe(path) == recipe
    conversion = {"precision": "fp32"}  # of a file that was converted, this is said by its recipe
    path.with_suffix(".json").write_text(json.dumps(recipe.to_dict() | {"conversion": conversion}))
    assert load_model_recipe(path).file_precision == "fp32"


def test_an_output_that_is_not_there(model):
    write_recipe(model, output={"name": "prob"})
    with pytest.raises(UserError, match=r"outputs scores: output\.name = 'prob' is not there"):
        load_model_recipe(model)


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


@pytest.mark.parametrize("name", [b"ReduceMean", b"pixels", b"scores"])
def test_a_name_that_is_no_text(tmp_path, name):
    path = make_onnx(tmp_path / "tiny.onnx")
    path.write_bytes(path.read_bytes().replace(name, b"\xff" + name[1:]))
    with pytest.raises(UserError, match="a name in it is no text"):
        load_model_recipe(path)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_model_recipe(tmp_path / "none.onnx")
    with pytest.raises(UserError, match="no such file"):
        load_model_recipe(tmp_path)


@pytest.mark.parametrize(
    "location",
    [
        "../weights.bin",
        "/etc/passwd",
        "link/weights.bin",
        "link/../tiny.json",
        "{folder}/tiny.json",
    ],
)
def test_weights_outside_the_folder_are_refused(tmp_path, location):
    (tmp_path / "weights.bin").write_bytes(bytes(12000))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    path = make_onnx(folder / "tiny.onnx", external=location.format(folder=folder))
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
