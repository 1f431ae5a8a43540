"""What plans are made of: models by their names, calibration images, real networks."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ..builders.installed_plans import (
    BUILDS_PLANS,
    check_plan,
    explain,
    install,
    plans,
    read_sidecar,
)

__all__ = ["plans"]
PROGRAM = "program:image-classification-tensorrt-loadgen-py"

pytestmark = BUILDS_PLANS


def write_tiny(folder: Path, seed: int = 0) -> str:
    """A network of ImageNet's 1000 classes in one small file; returns its name, a new one."""
    name = f"tiny-{uuid.uuid4().hex[:8]}"
    write_network(folder / f"{name}.onnx", seed)
    recipe = {
        "name": name,
        "image": {"side": 32, "crop": 0.875, "interpolation": "area", "channels": "rgb"},
        "mean": [127.5] * 3,
        "scale": [1 / 127.5] * 3,
    }
    (folder / f"{name}.json").write_text(json.dumps(recipe))
    return name


def write_network(path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    weights = {
        "kernel": generator.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "dense": generator.normal(size=(8, 1000)).astype(np.float32),
        "bias": generator.normal(size=1000).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["folded"], strides=[2, 2]),
        helper.make_node("Relu", ["folded"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense", "bias"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 1000])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


@pytest.fixture
def forgotten(ck):
    """Takes what a test has registered for ImageNet out of the CK home again."""
    yield
    ck("rm", "env:*", "--tags=dataset,calibration,imagenet", "--force", code=None)


def test_any_detected_model_by_its_name(ck, tmp_path):
    name = write_tiny(tmp_path)
    ck("detect", "soft:model.onnx", f"--full_path={tmp_path / name}.onnx")
    install(ck, "model,tensorrt,converted-from-onnx,fp16,maxbatch.6", f"--dep_add_tags.onnx={name}")
    tags = f"model,tensorrt,{name},converted-from-onnx,fp16,maxbatch.6"
    check_plan(*read_sidecar(ck, tags), "fp16", 6, side=32)
    explain(ck, tags, code=0)
    # In a run the name is simply one of the plan's tags; and any batch will do.
    unlisted = tags.replace("maxbatch.6", "maxbatch.131")
    failed = ck("run", PROGRAM, f"--dep_add_tags.weights={unlisted}", code=None)
    check_plan(*read_sidecar(ck, unlisted), "fp16", 131, side=32)
    assert "Traceback" not in failed.stdout + failed.stderr
    # Another network in the same file: its plan is another.
    write_network(tmp_path / f"{name}.onnx", seed=1)
    ck("detect", "soft:model.onnx", f"--full_path={tmp_path / name}.onnx")
    assert "source_sha256" in explain(ck, tags, code=2)


def test_two_models_with_the_tags_are_not_chosen_between(ck, tmp_path):
    names = [write_tiny(tmp_path, seed) for seed in range(2)]
    for name in names:
        ck("detect", "soft:model.onnx", f"--full_path={tmp_path / name}.onnx", "--extra_tags=twins")
    tags = "model,tensorrt,twins,converted-from-onnx,maxbatch.2"
    for command in (["why", "loadgen", f"--tags={tags}"],
                    ["run", PROGRAM, f"--dep_add_tags.weights={tags}"]):  # fmt: skip
        said = ck(*command, code=2).stderr
        assert "more than one thing" in said
        assert all(name in said for name in names)
    uid = re.search(rf"--deps\.onnx=(\w+) .*{names[1]}", said)[1]
    command = shlex.split(re.search(r"(ck install .*) --deps\.onnx=UID", said)[1])
    ck(*command[1:], f"--deps.onnx={uid}")
    assert read_sidecar(ck, tags)[1]["recipe"]["name"] == names[1]
    explain(ck, tags, code=0)


def test_int8_without_calibration_images_is_refused_with_the_command(ck, tmp_path, forgotten):
    name = write_tiny(tmp_path)
    ck("detect", "soft:model.onnx", f"--full_path={tmp_path / name}.onnx")
    request = ["model,tensorrt,converted-from-onnx,int8,maxbatch.2", f"--dep_add_tags.onnx={name}"]
    failed = install(ck, *request, code=2)
    assert "needs images to calibrate with" in failed.stderr
    named = f"model,tensorrt,{name},converted-from-onnx,int8,maxbatch.2"
    assert "to calibrate with" in ck("why", "loadgen", f"--tags={named}", code=2).stderr
    command = re.search(r"`(ck detect soft:dataset\.imagenet\.calibration .*?)`", failed.stderr)[1]
    images = tmp_path / "images"
    images.mkdir()
    generator = np.random.default_rng(0)
    for number in range(16):
        pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        cv2.imwrite(str(images / f"{number}.png"), pixels)
    ck(*command.replace("FOLDER", str(images)).split()[1:])
    install(ck, *request)
    plan, sidecar = read_sidecar(ck, named)
    check_plan(plan, sidecar, "int8", 2, side=32)
    assert sidecar["key"]["calibration"]["count"] == 16
    # Other images: calibrated and built again.
    (images / "15.png").unlink()
    ck(*command.replace("FOLDER", str(images)).split()[1:])
    assert "calibration images" in explain(ck, named, code=2)
    install(ck, *request)
    assert read_sidecar(ck, named)[1]["key"]["calibration"]["count"] == 15
    explain(ck, named, code=0)


def test_calibration_images_are_never_images_to_run_on(ck, plans):
    uid = ck("search", "env", "--tags=dataset,preprocessed,calibration,digits").stdout.split(":")[2]
    failed = ck("run", PROGRAM, f"--deps.images={uid.strip()}", code=2)
    assert "no labels" in failed.stderr


def test_a_folder_without_images_is_no_calibration_set(ck, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    failed = ck("detect", "soft:dataset.imagenet.calibration", f"--full_path={tmp_path}", code=2)
    assert "no images" in failed.stderr


def test_mlperfs_list_is_picked_out_of_the_validation_images(ck, tmp_path, repository):
    pick = repository / "package" / "dataset-imagenet-calibration" / "pick_images.py"
    helper_site = repository / "src"
    (tmp_path / "val").mkdir()
    for name in "abc":
        (tmp_path / "val" / f"{name}.JPEG").write_bytes(name.encode())

    def run(*names: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "list.txt").write_text("".join(f"{name} 7\n" for name in names))
        return subprocess.run(
            [sys.executable, pick, "--list", tmp_path / "list.txt", "--source", tmp_path / "val",
             "--output", tmp_path / "images"],
            env={"PYTHONPATH": str(helper_site)}, capture_output=True, text=True,
        )  # fmt: skip

    for names in (["a.JPEG", "c.JPEG"], ["b.JPEG"]):
        assert run(*names).returncode == 0
        assert sorted(path.name for path in (tmp_path / "images").iterdir()) == names
    assert (tmp_path / "images" / "b.JPEG").read_bytes() == b"b"
    failed = run("b.JPEG", "d.JPEG")
    assert failed.returncode == 2
    assert "d.JPEG" in failed.stderr
    assert run("../val/a.JPEG").returncode == 2
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["b.JPEG"]


# Real networks

REAL = {
    "resnet50_v1.5_pqf_large": [("fp32", 32), ("fp16", 1), ("int8", 64)],
    "mobilenet_v1_1.0_224": [("fp32", 1), ("fp16", 16), ("int8", 32)],
    "SqueezeNet_fp16": [("fp32", 1), ("fp16", 1), ("int8", 1)],  # the file fixes the batch
}


@pytest.fixture(scope="module")
def real_ck(ck, shared_data: Path, repository: Path, tmp_path_factory):
    """The CK home with three real networks and calibration images registered."""
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
    for name in REAL:
        ck("detect", "soft:model.onnx", f"--full_path={folder / name}.onnx")
    images = shared_data / "calibration-150"
    ck("detect", "soft:dataset.imagenet.calibration", f"--full_path={images}")
    yield ck
    for tags in ("dataset,imagenet", *(f"model,{name}" for name in REAL)):
        ck("rm", "env:*", f"--tags={tags}", "--force", code=None)


@pytest.mark.parametrize(
    ("name", "precision", "batch"),
    [(name, *case) for name, cases in REAL.items() for case in cases],
)
def test_real_networks_become_plans(real_ck, name, precision, batch):
    tags = f"model,tensorrt,converted-from-onnx,{precision},maxbatch.{batch}"
    # How accurate int8 is with all of the images is a test of its own; here they take their time.
    few = ["--env.CALIBRATION_COUNT=12"] if precision == "int8" else []
    install(real_ck, tags, f"--dep_add_tags.onnx={name}", *few)
    plan, sidecar = read_sidecar(real_ck, f"{tags},{name}")
    check_plan(plan, sidecar, precision, batch, side=224)
    if precision == "int8":
        assert sidecar["key"]["calibration"]["count"] == 12
    explain(real_ck, f"{tags},{name}", code=0)
    shutil.rmtree(plan.parent)  # a hundred megabytes each
