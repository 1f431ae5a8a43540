"""Three real networks on 500 real ImageNet images, by `ck run` and by `ck benchmark --record`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = "program:image-classification-tensorrt-loadgen-py"
# Top-1 in percent on these 500 images, as stated with the data; 0.6 points are allowed.
ACCURACIES = {
    "SqueezeNet_fp16": 59.4,
    "mobilenet_v1_1.0_224": 86.4,
    "resnet50_v1.5_pqf_large": 83.8,
}
TOLERANCE = 0.6


@pytest.fixture(scope="module")
def models(shared_data: Path, repository: Path, tmp_path_factory) -> Path:
    """A folder with the three models and their recipes."""
    folder = tmp_path_factory.mktemp("models")
    source = shared_data / "models"
    shutil.copy(source / "SqueezeNet_fp16.onnx", folder)
    shutil.copy(
        source / "mobilenet_v1_1.0_224_quant.fp32.onnx", folder / "mobilenet_v1_1.0_224.onnx"
    )
    build = [sys.executable, source / "build_resnet.py", "pqf", "resnet50"]
    resnet = folder / "resnet50_v1.5_pqf_large.onnx"
    subprocess.run([*build, source / "pqf_resnet50_large.npz", resnet], check=True)
    for recipe in (repository / "test" / "data" / "recipes").glob("*.json"):
        shutil.copy(recipe, folder)
    return folder


@pytest.fixture(scope="module")
def imagenet_ck(ck, models: Path, shared_data: Path):
    """The CK home with the images and the models registered."""
    ck("detect", "soft:dataset.imagenet.val", f"--full_path={shared_data / 'imagenet-500'}")
    for name in ACCURACIES:
        ck("detect", "soft:model.onnx", f"--full_path={models / name}.onnx")
    yield ck
    for tags in ("dataset,imagenet", *(f"model,{name}" for name in ACCURACIES)):
        ck("rm", "env:*", f"--tags={tags}", "--force", code=None)


def flags(name: str) -> list[str]:
    return [f"--dep_add_tags.weights=model,onnx,{name}", "--env.CK_LOADGEN_SCENARIO=Offline"]


def check(record: dict, name: str) -> None:
    assert record["accuracy"]["total"] == 500
    assert record["accuracy"]["top1_percent"] == pytest.approx(ACCURACIES[name], abs=TOLERANCE)
    assert record["model"]["name"] == name
    assert record["dataset"]["name"] == "imagenet"
    for verdict in record["verdicts"]["rules"]:
        assert not verdict["valid"]
        assert any("500 of imagenet" in reason for reason in verdict["unofficial"])


@pytest.mark.parametrize("name", ACCURACIES)
def test_run(imagenet_ck, name):
    imagenet_ck("run", PROGRAM, *flags(name))
    check(json.loads((imagenet_ck.tmp / "record.json").read_text()), name)


@pytest.mark.parametrize("name", sorted(set(ACCURACIES) - {"resnet50_v1.5_pqf_large"}))  # slow
def test_benchmark(imagenet_ck, name):
    experiment = f"accuracy.{name}"
    imagenet_ck("benchmark", PROGRAM, *flags(name), "--repetitions=1", "--record",
                "--record_repo=local", f"--record_uoa={experiment}", f"--tags={name}",
                "--skip_stat_analysis", "--process_multi_keys", "--sleep=0")  # fmt: skip
    (point,) = (imagenet_ck.experiments / experiment).glob("ckp-*.0001.json")
    check(json.loads(point.read_text())["characteristics_list"][0]["run"], name)
