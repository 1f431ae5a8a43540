"""The digits model, as it lies in the repository."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.preprocessed import PreprocessedSet
from ck_mlperf.models.recipe import load_model_recipe, normalise

from ...builders.digits import DIGITS_MODEL, make_digits


@pytest.fixture(scope="module")
def onnx_file() -> Path:
    return DIGITS_MODEL


@pytest.fixture(scope="module")
def held_out(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> PreprocessedSet:
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder / "images")
    recipe = load_model_recipe(onnx_file).image
    return preprocess(folder / "images", folder / "preprocessed", recipe, dataset="digits")


@pytest.fixture(scope="module")
def session(onnx_file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])


def test_at_least_97_percent_of_the_held_out_images_are_right(
    onnx_file: Path, held_out: PreprocessedSet, session: onnxruntime.InferenceSession
) -> None:
    recipe = load_model_recipe(onnx_file)
    inputs = normalise(held_out.images, recipe)
    [scores] = session.run([recipe.output.name], {recipe.input.name: inputs})
    assert scores.shape == (500, 10)
    good = int((scores.argmax(axis=1) - recipe.labels_offset == held_out.labels).sum())
    assert good / 500 >= 0.97, f"{good} of 500 right"


@pytest.mark.parametrize("batch", [1, 7])
def test_the_batch_size_changes_no_score(
    onnx_file: Path, held_out: PreprocessedSet, session: onnxruntime.InferenceSession, batch: int
) -> None:
    recipe = load_model_recipe(onnx_file)
    assert recipe.max_batch is None
    inputs = normalise(held_out.images[:21], recipe)
    [together] = session.run(None, {recipe.input.name: inputs})
    parts = [
        session.run(None, {recipe.input.name: inputs[at : at + batch]})[0]
        for at in range(0, 21, batch)
    ]
    np.testing.assert_allclose(np.concatenate(parts), together, rtol=1e-4, atol=1e-4)


def test_the_file_is_valid_small_and_complete(onnx_file: Path) -> None:
    assert onnx_file.stat().st_size < 500_000
    model = onnx.load(onnx_file, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 13)]
    assert {tensor.data_type for tensor in model.graph.initializer} == {onnx.TensorProto.FLOAT}
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_the_recipe_says_what_the_onnx_file_says(onnx_file: Path, tmp_path: Path) -> None:
    recipe = load_model_recipe(onnx_file)
    said = json.loads(onnx_file.with_suffix(".json").read_text())
    md5 = hashlib.md5(onnx_file.read_bytes(), usedforsecurity=False).hexdigest()
    assert recipe.to_dict() == said | {"source_md5": md5}
    assert (recipe.name, recipe.dataset, recipe.classes) == ("digits", "digits", 10)
    assert (recipe.labels_offset, recipe.weights) == (0, "trained")
