"""A whole run reads what was registered: the weights in another file, and each pixel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from ck_mlperf.common.files import hash_file
from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.preprocessed import IMAGES_FILE
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.models.model_file import hash_model
from ck_mlperf.models.recipe import load_model_recipe

from ..builders.images import write_images
from ..builders.real_run import MODEL

COUNT = 12


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job of the digits network, whose weights are in another file."""
    path = tmp_path / "model" / "digits.onnx"
    path.parent.mkdir()
    onnx.save(
        onnx.load(MODEL), path, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    path.with_suffix(".json").write_text(MODEL.with_suffix(".json").read_text())
    recipe = load_model_recipe(path).to_dict()
    write_images(tmp_path / "originals", COUNT)
    image = ImageRecipe.from_dict(recipe["image"])
    preprocess(tmp_path / "originals", tmp_path / "images", image, dataset="digits", labelled=False)
    variables = {"CK_LOADGEN_SCENARIO": "Offline", "CK_LOADGEN_COUNT_OVERRIDE": 24}
    job = {
        "settings": {**variables, "CK_LOADGEN_MODE": "PerformanceOnly"},
        "model": str(path),
        "sha256": hash_model(path, ["w.bin"]),
        "external_files": ["w.bin"],
        "recipe": recipe,
        "images": str(tmp_path / "images"),
    }
    (tmp_path / "run").mkdir()
    made = tmp_path / "run" / "job.json"
    made.write_text(json.dumps(job))
    return made


def run(job: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ck_mlperf", "run", job.name]
    return subprocess.run(
        command, cwd=job.parent, env=environment, capture_output=True, text=True, check=False
    )


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_what_is_read_is_what_was_registered(
    job: Path, tmp_path: Path, library_environment: dict[str, str]
) -> None:
    ended = run(job, library_environment)
    assert ended.returncode == 0, ended.stderr
    record = json.loads((job.parent / "record.json").read_text())
    model = tmp_path / "model" / "digits.onnx"
    assert record["model"]["sha256"] == hash_model(model, ["w.bin"]) != hash_file(model)
    flip(tmp_path / "images" / IMAGES_FILE, -1)
    flip(model.with_name("w.bin"), 0)
    ended = run(job, library_environment)
    assert ended.returncode == 2
    assert "digits.onnx has changed since it was registered with CK" in ended.stderr
    flip(model.with_name("w.bin"), 0)
    ended = run(job, library_environment)
    assert ended.returncode == 2
    assert f"1 of the {COUNT} images to load, first {COUNT - 1} (" in ended.stderr
    assert not (job.parent / "record.json").exists()
