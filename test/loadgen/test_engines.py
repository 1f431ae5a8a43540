"""The engines, on small models of which the answer can be computed by hand."""

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.engines import EngineError, make_engine
from ck_mlperf.loadgen.engines.answers import pick_top5

SIDE = 4
MEAN = [120.0, 130.0, 125.0]
SCALE = [0.5, 0.25, 0.125]


@pytest.fixture
def make_model(tmp_path):
    """Writes a model whose scores are a random linear map of an image's mean colour."""

    def make(classes=10, batch="N", dtype="float32", kind="scores", spoil=None, scale=SCALE):
        weights = np.random.default_rng(5).standard_normal((3, classes)).astype(dtype)
        constants = [numpy_helper.from_array(weights, "weights")]
        nodes = [
            helper.make_node("ReduceMean", ["images"], ["colour"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["colour", "weights"], ["scores"]),
        ]
        tensor_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        output = helper.make_tensor_value_info("scores", tensor_type, [batch, classes])
        if spoil == "divide":
            # log(-x) of some images: not a number.
            nodes[1].output[0] = "raw"
            nodes.append(helper.make_node("Log", ["raw"], ["scores"]))
        if kind == "class":
            nodes.append(helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0))
            output = helper.make_tensor_value_info("best", TensorProto.INT64, [batch])
        if spoil == "class":
            nodes[-1].output[0] = "argmax"
            constants.append(numpy_helper.from_array(np.array(100, np.int64), "hundred"))
            nodes.append(helper.make_node("Add", ["argmax", "hundred"], ["best"]))
        if spoil == "rows":  # every row, and then each again
            nodes[-1].output[0] = "once"
            nodes.append(helper.make_node("Concat", ["once", "once"], ["scores"], axis=0))
            output = helper.make_tensor_value_info("scores", tensor_type, ["rows", classes])
        if spoil == "float":
            nodes[-1].output[0] = "whole"
            nodes.append(helper.make_node("Cast", ["whole"], ["best"], to=TensorProto.FLOAT))
            output = helper.make_tensor_value_info("best", TensorProto.FLOAT, [batch])
        if spoil == "operator":
            nodes[0].op_type, nodes[0].domain = "Unknown", "example"
        images = helper.make_tensor_value_info("images", tensor_type, [batch, 3, SIDE, SIDE])
        graph = helper.make_graph(nodes, "colours", [images], [output], constants)
        opsets = [helper.make_opsetid("", 13), helper.make_opsetid("example", 1)]
        path = tmp_path / "colours.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
        recipe = {
            "dataset": "digits",
            "image": {"side": SIDE, "crop": 1.0, "interpolation": "area", "channels": "rgb"},
            "mean": MEAN,
            "scale": scale,
            "classes": classes,
        }
        path.with_suffix(".json").write_text(json.dumps(recipe))
        return path, weights

    return make


@pytest.fixture
def images():
    """Each of another colour, so that the labels differ."""
    random = np.random.default_rng(3)
    colours = random.integers(20, 236, (50, 1, 1, 3))
    return (colours + random.integers(-20, 20, (50, SIDE, SIDE, 3))).astype(np.uint8)


def compute_labels(images, weights, offset=0):
    """All labels, best first: the definition."""
    colour = ((images.astype(np.float64) - MEAN) * SCALE).mean(axis=(1, 2))
    return np.argsort(-(colour @ weights.astype(np.float64)), axis=1) - offset


def classify(engine, rows):
    engine.enqueue(rows)
    return engine.collect()


@pytest.mark.parametrize(
    "rows",
    [[0], [49], list(range(50)), [4, 5, 6], [7, 3, 3, 40], [0, 2, 1], list(range(49, -1, -1))],
    ids=str,
)
def test_labels_of_any_rows(make_model, images, rows):
    path, weights = make_model()
    with make_engine("onnx", path) as engine:
        assert engine.gives_top5
        assert engine.max_batch is None
        engine.load(images)
        for _ in range(2):  # a second batch must not see the first one's buffer
            labels = classify(engine, rows)
            assert labels.dtype == np.int32
            assert labels.tolist() == compute_labels(images, weights)[rows, :5].tolist()


def test_load_replaces(make_model, images):
    path, weights = make_model()
    with make_engine("onnx", path) as engine:
        engine.load(images[:20])
        engine.unload()
        engine.load(images[20:])
        assert classify(engine, [0, 5])[:, 0].tolist() == (
            compute_labels(images, weights)[[20, 25], 0].tolist()
        )


def test_background_class_is_minus_one(make_model, images):
    path, weights = make_model(classes=11)
    expected = compute_labels(images, weights, offset=1)
    assert (expected[:, 0] == -1).any()
    with make_engine("onnx", path) as engine:
        engine.load(images)
        assert classify(engine, range(50)).tolist() == expected[:, :5].tolist()


@pytest.mark.parametrize("batch", [1, 4])
def test_fixed_batch_is_filled_up(make_model, images, batch):
    path, weights = make_model(batch=batch)
    expected = compute_labels(images, weights)
    with make_engine("onnx", path) as engine:
        assert engine.max_batch == batch
        engine.load(images)
        for rows in ([9], [30, 31, 32, 33], [1, 2, 3], [48, 49])[: None if batch == 4 else 1]:
            assert classify(engine, rows).tolist() == expected[rows, :5].tolist()


def test_float16(make_model, images):
    path, weights = make_model(dtype="float16")
    with make_engine("onnx", path) as engine:
        engine.load(images)
        labels = classify(engine, range(50))
    agree = labels[:, 0] == compute_labels(images, weights)[:, 0]
    assert agree.mean() > 0.9  # scores of 11 bits tie now and then


def test_model_that_gives_a_class(make_model, images):
    path, weights = make_model(classes=11, kind="class")
    with make_engine("onnx", path) as engine:
        assert not engine.gives_top5
        engine.load(images)
        labels = classify(engine, range(50))
    assert labels.shape == (50,)
    assert labels.tolist() == compute_labels(images, weights, offset=1)[:, 0].tolist()


def test_scores_that_are_no_numbers(make_model, images):
    path, _ = make_model(spoil="divide")
    with make_engine("onnx", path) as engine:
        engine.load(images)
        with pytest.raises(EngineError, match=r"colours.onnx gave a score that is not a finite"):
            classify(engine, range(50))


def test_class_out_of_range(make_model, images):
    path, _ = make_model(kind="class", spoil="class")
    with make_engine("onnx", path) as engine:
        engine.load(images)
        with pytest.raises(EngineError, match=r"gave a class outside 0 to 9"):
            classify(engine, [0, 1])


def test_classes_as_floats_are_not_taken_for_labels(make_model, images):
    path, _ = make_model(kind="class", spoil="float")
    with make_engine("onnx", path) as engine:
        engine.load(images)
        with pytest.raises(EngineError, match=r"of shape \(2,\), want 10 scores a row"):
            classify(engine, [0, 1])


def test_two_rows_for_a_sample(make_model):
    path, _ = make_model(spoil="rows")
    with pytest.raises(EngineError, match=r"batch 1 of .*colours.onnx gave 2 rows for 1 samples"):
        make_engine("onnx", path).open()


def test_model_that_onnx_runtime_cannot_run(make_model):
    path, _ = make_model(spoil="operator")
    with pytest.raises(UserError, match=r"colours.onnx: ONNX Runtime cannot open it"):
        make_engine("onnx", path).open()


def test_file_that_is_no_model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("<html>not found</html>")
    with pytest.raises(UserError, match="HTML page"):
        make_engine("onnx", path)


def test_top5_breaks_ties_by_class():
    scores = np.array([[0, 1, 1, 3, 2, 0.5, 3], [6, 5, 4, 3, 2, 1, 0]], np.float32)
    assert pick_top5(scores).tolist() == [[3, 6, 4, 1, 2], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("kind", ["onnx", "null"])  # the others need a GPU: test_cuda.py
def test_every_engine_says_what_it_is(make_model, images, kind):
    path, _ = make_model()
    with make_engine(kind, path) as engine:
        engine.load(images)
        for count in (3, 1, 3):
            labels = classify(engine, range(count))
            assert len(labels) == count
            assert (labels >= -1).all()
        assert all(isinstance(text, str) for text in (engine.name, engine.version, engine.device))
        assert engine.depth >= 1
        engine.unload()


def test_onnxruntime_keeps_and_sends_nothing(make_model, tmp_path):
    """It would leave an identifier of the machine in the user's cache (1.32 and newer)."""
    path, _ = make_model()
    home = tmp_path / "home"
    home.mkdir()
    program = (
        "import sys; from pathlib import Path; "
        "from ck_mlperf.models.recipe import load_model_recipe; "
        "from ck_mlperf.loadgen.engines import make_engine; path = Path(sys.argv[1]); "
        "make_engine('onnx', path, load_model_recipe(path)).open()"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    subprocess.run(
        [sys.executable, "-c", program, path],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    assert not list(home.iterdir())
