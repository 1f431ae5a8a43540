from __future__ import annotations

import os
import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest

from ck_mlperf.models.recipe import load_model_recipe, normalise
from ck_mlperf.models.recognise import RESNET50_V1_5

from ...builders.digits import PACKAGES
from ...builders.in_process import run_script

SCRIPT = PACKAGES / "model-onnx-resnet50" / "make_resnet50.py"
NAME = "resnet50_random.onnx"


@pytest.fixture(scope="module")
def make():
    def run(folder: Path, *options: str) -> Path:
        assert run_script(SCRIPT, folder, *options) == 0
        return folder / NAME

    return run


@pytest.fixture(scope="module")
def model(make, tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("resnet") / "new")


def test_the_recipe_says_that_the_weights_are_random(model):
    recipe = load_model_recipe(model)
    assert recipe.weights == "random"
    assert recipe.mean == (123.68, 116.78, 103.94)
    assert (recipe.classes, recipe.labels_offset, recipe.max_batch) == (1000, 0, None)
    assert sorted(os.listdir(model.parent)) == ["resnet50_random.json", NAME]


def test_the_graph_is_that_of_resnet50_version_1_5(model):
    assert load_model_recipe(model).network == RESNET50_V1_5
    graph = onnx.load(model).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 53
    # 25,557,032 with batch norm's two vectors for each of 26,560 channels, which are a bias here.
    assert sum(int(np.prod(tensor.dims)) for tensor in graph.initializer) == 25_557_032 - 26_560
    strided = {}
    for node in convolutions:
        attributes = {attribute.name: attribute.ints for attribute in node.attribute}
        if attributes["strides"] == [2, 2]:
            strided[node.name] = attributes["kernel_shape"][0]
    # v1.5: of the strided blocks the 3x3, not the first 1x1, has the stride.
    assert sorted(strided.values()) == [1, 1, 1, 3, 3, 3, 7]
    assert all(size == 3 for name, size in strided.items() if name.endswith("conv2"))


def test_scores_are_finite_and_differ_between_images(model):
    onnxruntime = pytest.importorskip("onnxruntime")
    recipe = load_model_recipe(model)
    images = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(model)
    (scores,) = session.run(["output"], {"input": normalise(images, recipe)})
    assert scores.shape == (4, 1000)
    assert np.isfinite(scores).all()
    assert scores.std(axis=0).mean() > 0.1
    assert 0.1 < scores.std() < 100


def test_the_seed_decides_the_bytes(model, make, tmp_path):
    same = runpy.run_path(str(SCRIPT))["build_resnet50"](0)
    assert same.SerializeToString() == model.read_bytes()
    other = make(tmp_path / "other", "--seed", "1")
    assert other.read_bytes() != model.read_bytes()
