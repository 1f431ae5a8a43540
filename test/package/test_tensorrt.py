"""Plans by `ck install package`: TensorRT for RTX from PyPI builds them, without a GPU."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

PROGRAM = "program:image-classification-tensorrt-loadgen-py"
DIGITS = "model,tensorrt,digits,converted-from-onnx"
CASES = [("fp32", 4), ("tf32", 2), ("fp16", 32), ("int8", 1)]
# What the first layer computes in, and so what the plan itself takes.
NATIVE = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "int8": "int8"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None,
        reason="NOT RUN: needs TensorRT for RTX (pip install tensorrt-rtx-cu13)",
    ),
]


def install(ck, tags: str, *flags: str, code: int = 0, timeout: float = 300):
    return ck("install", "package", f"--tags={tags}", "--quiet", *flags, code=code, timeout=timeout)


def find_one(ck, tags: str) -> dict:
    """The meta of the one env entry with these tags."""
    (line,) = ck("search", "env", f"--tags={tags}").stdout.split()
    entry = ck.experiments.parent / "env" / line.rpartition(":")[2]
    return json.loads((entry / ".cm" / "meta.json").read_text())


def read_sidecar(ck, tags: str) -> tuple[Path, dict]:
    """The one plan with these tags, and what lies beside it."""
    plan = Path(find_one(ck, tags)["customize"]["full_path"])
    return plan, json.loads(plan.with_name("model.plan.json").read_text())


def check_plan(
    plan: Path, sidecar: dict, precision: str, batch: int, side: int, samples: str = "uint8"
) -> None:
    """samples: what they are; 'uint8', images of which the GPU makes the plan's input."""
    key = sidecar["key"]
    assert hashlib.sha256(plan.read_bytes()).hexdigest() == sidecar["plan"]["sha256"]
    assert (key["flavour"], key["precision"], key["input"], key["max_batch"]) == (
        "tensorrt_rtx",
        precision,
        samples,
        batch,
    )
    assert sidecar["recipe"]["max_batch"] == batch
    (source,) = sidecar["inputs"]
    (answer,) = sidecar["outputs"]
    assert source["dtype"] == NATIVE[precision]
    assert source["shape"][1:] == [3, side, side]
    described = sidecar["recipe"]["input"]
    assert (described["dtype"], described["layout"]) == (NATIVE[precision], "NCHW")
    assert ("step" in described) == (precision == "int8")
    assert answer["dtype"] == "int32"
    assert len(answer["shape"]) == 1
    assert (key["calibration"] is not None) == (precision == "int8")
    assert key["onnx_sha256"] != key["source_sha256"]


@pytest.fixture(scope="module")
def plans(ck):
    """The digits network as a plan in every precision; what each installation printed."""
    return {
        (precision, batch): install(ck, f"{DIGITS},{precision},maxbatch.{batch}").stdout
        for precision, batch in CASES
    }


@pytest.mark.parametrize(("precision", "batch"), CASES)
def test_digits_become_a_plan_with_its_sidecar(ck, plans, precision, batch):
    plan, sidecar = read_sidecar(ck, f"{DIGITS},{precision},maxbatch.{batch}")
    check_plan(plan, sidecar, precision, batch, side=28)
    source = ck.root / "package" / "model-onnx-digits" / "digits.onnx"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert sidecar["key"]["source_sha256"] == digest
    tags = find_one(ck, f"{DIGITS},{precision},maxbatch.{batch}")["tags"]
    assert {"trained", "tensorrt-rtx", "input.uint8", "output.class"} <= set(tags)


def test_int8_of_digits_is_calibrated_on_training_images(ck, plans):
    calibration = read_sidecar(ck, f"{DIGITS},int8")[1]["key"]["calibration"]
    folder = Path(find_one(ck, "dataset,digits,calibration,preprocessed")["customize"]["full_path"])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert calibration["images_sha256"] == manifest["images_sha256"]
    names = [line.split()[0] for line in (folder / "val_map.txt").read_text().splitlines()]
    assert len(names) == manifest["count"] >= 500
    assert all(name.startswith("digits_train_") for name in names)


def test_every_combination_has_a_folder_of_its_own(ck, plans):
    folders = {read_sidecar(ck, f"{DIGITS},{p},maxbatch.{n}")[0].parent for p, n in CASES}
    assert len(folders) == len(CASES)
    assert all(folder.parent == ck.tools for folder in folders)
    # What builds leave for others is in the folder that all of them share.
    builds = json.loads((ck.tools / "plan-build-times.json").read_text())
    assert {build["kind"][3] for build in builds} >= {"fp32", "tf32", "fp16", "int8"}


def test_the_same_again_is_a_quick_reuse(ck, plans):
    tags = f"{DIGITS},fp32,maxbatch.4"
    plan, sidecar = read_sidecar(ck, tags)
    changed = plan.stat().st_mtime_ns
    for again in (tags, f"{tags},tensorrt-rtx,input.uint8"):  # however many of its tags are named
        assert f"{plan}: reused because" in install(ck, again).stdout
    assert plan.stat().st_mtime_ns == changed
    assert read_sidecar(ck, tags) == (plan, sidecar)  # and there is still one
    loaded = list_imports(ck, plan)
    assert "ck_mlperf.tensorrt.plan_file" in loaded
    # What takes long to load is not needed to see that there is nothing to do.
    assert not loaded & {"numpy", "onnx", "onnxruntime", "tensorrt_rtx_bindings"}


def list_imports(ck, plan: Path) -> set[str]:
    """The modules that the package's step loads where nothing is to be done."""
    meta = find_one(ck, f"{DIGITS},fp32,maxbatch.4")
    model = meta["deps"]["converted"]["dict"]["customize"]["full_path"]
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ck_mlperf.tensorrt.build", "--model", model,
         "--output", plan, "--precision", "fp32", "--max-batch", "4",
         "--flavour", "tensorrt_rtx"],
        env=ck.environment | {"PYTHONPATH": str(ck.root / "src")},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "reused because" in process.stdout
    return {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}


def test_the_models_own_input_and_its_scores(ck, plans):
    install(ck, f"{DIGITS},fp32,maxbatch.3,input.fp32,output.scores")
    _, sidecar = read_sidecar(ck, f"{DIGITS},fp32,maxbatch.3,input.fp32,output.scores")
    assert sidecar["inputs"][0]["dtype"] == "float32"
    assert sidecar["outputs"][0]["dtype"] == "float32"
    assert sidecar["outputs"][0]["shape"][1] == 10


@pytest.mark.parametrize(("precision", "batch"), [("int8", 1), ("fp16", 32)])
def test_samples_as_the_plan_takes_them_are_another_plan(ck, plans, precision, batch):
    """Both are made from one converted file, and each is what its own tags ask for."""
    tags = f"{DIGITS},{precision},maxbatch.{batch}"
    install(ck, f"{tags},input.{precision}")
    own = find_one(ck, f"{tags},input.{precision}")
    images = find_one(ck, f"{tags},input.uint8")
    assert "input.uint8" not in own["tags"]
    assert f"input.{precision}" not in images["tags"]
    check_plan(*read_sidecar(ck, f"{tags},input.{precision}"), precision, batch, 28, precision)
    check_plan(*read_sidecar(ck, f"{tags},input.uint8"), precision, batch, 28)
    files = {meta["deps"]["converted"]["dict"]["customize"]["full_path"] for meta in (own, images)}
    assert len(files) == 1
    explain(ck, f"{tags},input.{precision}", code=0)
    # Who does not say what samples are gets images.
    assert images["customize"]["full_path"] in explain(ck, tags, code=0)


@pytest.mark.parametrize(
    ("precision", "samples"), [("fp16", "int8"), ("int8", "fp16"), ("fp32", "fp16")]
)
def test_samples_of_another_precision_are_refused(ck, precision, samples):
    tags = f"{DIGITS},{precision},maxbatch.1,input.{samples}"
    told = f"error: input.{samples} is the input of a plan in {samples}, and {precision} was asked"
    assert told in install(ck, tags, code=2).stderr
    assert told in ck("why", "loadgen", f"--tags={tags}", code=2).stderr


def test_what_a_user_tells_the_builder_is_part_of_the_key(ck, plans):
    tags = f"{DIGITS},fp32,maxbatch.5"
    options = ["--env.TENSORRT_BUILDER_LEVEL=2", "--env.TENSORRT_AUX_STREAMS=0"]
    install(ck, tags, *options)
    plan, sidecar = read_sidecar(ck, tags)
    told = {"builder_level": 2, "aux_streams": 0, "tiling_level": None}
    assert sidecar["key"]["options"].items() >= told.items()
    explain(ck, tags, code=0)
    assert f"{plan}: reused because" in install(ck, tags, *options).stdout
    failed = install(ck, f"{DIGITS},fp32,maxbatch.6", "--env.TENSORRT_TILING_LEVEL=1", code=None)
    assert failed.returncode
    assert "has no tiling_level" in failed.stdout + failed.stderr


def test_a_batch_that_is_not_enumerated_takes_the_command_that_is_named(ck, plans):
    tags = f"{DIGITS},fp32,maxbatch.200"
    assert "not found" in install(ck, tags, code=16).stdout  # CK's own words
    said = ck("why", "loadgen", f"--tags={tags}", code=2).stdout
    command = shlex.split(re.search(r"to make it now: (ck .*)", said)[1])
    assert command[0] == "ck"
    ck(*command[1:])
    check_plan(*read_sidecar(ck, tags), "fp32", 200, side=28)
    assert "reused" in ck("why", "loadgen", f"--tags={tags}").stdout


def test_contradicting_batches_are_refused(ck):
    failed = ck("install", "package:model-tensorrt-convert-from-onnx", f"--tags={DIGITS}",
                "--extra_tags=maxbatch.200", "--env.ML_MODEL_MAX_BATCH_SIZE=100", "--quiet",
                code=2)  # fmt: skip
    assert "maxbatch.200" in failed.stderr
    assert "ML_MODEL_MAX_BATCH_SIZE=100" in failed.stderr


def test_converted_files_are_found_by_nobody_who_does_not_ask(ck, plans):
    ck("run", PROGRAM, "--dep_add_tags.weights=model,onnx,digits",
       "--env.CK_LOADGEN_DATASET_SIZE=50")  # fmt: skip
    job = json.loads((ck.tmp / "job.json").read_text())
    assert job["engine"] == "onnx"
    assert "conversion" not in job["recipe"] or job["recipe"]["conversion"] is None
    assert job["model"].endswith("digits.onnx")


@pytest.mark.parametrize("samples", ["uint8", "native"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_onnx_runtime_runs_a_converted_file_that_is_asked_for(ck, plans, precision, samples):
    weights = f"model,onnx,digits,converted-from-onnx,{precision},input.{samples}"
    ck("run", PROGRAM, f"--dep_add_tags.weights={weights}", "--env.CK_LOADGEN_SCENARIO=Offline",
       "--env.CK_BATCH_SIZE=50")  # fmt: skip
    job = json.loads((ck.tmp / "job.json").read_text())
    assert job["recipe"]["conversion"]["precision"] == precision
    assert job["recipe"]["input"]["dtype"] == (
        NATIVE[precision] if samples == "native" else samples
    )
    record = json.loads((ck.tmp / "record.json").read_text())
    assert record["accuracy"]["top1_percent"] >= 97


# A plan that is not what would be built now


def explain(ck, tags: str, code: int) -> str:
    return ck("why", "loadgen", f"--tags={tags}", code=code).stdout


@pytest.mark.parametrize(("part", "value"), [("version", "1.0.0.1"), ("source_sha256", "0" * 64)])
def test_a_stale_plan_is_built_again_and_the_reason_said(ck, plans, part, value):
    tags = f"{DIGITS},fp32,maxbatch.4"
    plan, sidecar = read_sidecar(ck, tags)
    right = sidecar["key"][part]
    sidecar["key"][part] = value
    plan.with_name("model.plan.json").write_text(json.dumps(sidecar))
    said = explain(ck, tags, code=2)
    assert part in said
    assert str(plan) in said
    failed = ck("run", PROGRAM, f"--dep_add_tags.weights={tags}", code=None)
    (line,) = [line for line in failed.stdout.splitlines() if line.startswith("building again: ")]
    assert part in line
    assert read_sidecar(ck, tags)[1]["key"][part] == right
    assert "reused" in explain(ck, tags, code=0)


def test_a_plan_that_was_cut_off_is_built_again(ck, plans):
    tags = f"{DIGITS},fp32,maxbatch.4"
    plan, sidecar = read_sidecar(ck, tags)
    plan.write_bytes(plan.read_bytes()[:-1])
    assert "cut off" in explain(ck, tags, code=2)
    install(ck, tags)
    assert plan.stat().st_size == sidecar["plan"]["bytes"]
    explain(ck, tags, code=0)


def test_a_plan_that_is_gone_is_built_again(ck, plans):
    tags = f"{DIGITS},tf32,maxbatch.2"
    plan, _ = read_sidecar(ck, tags)
    shutil.rmtree(plan.parent)
    assert "gone" in explain(ck, tags, code=2)
    install(ck, tags)
    explain(ck, tags, code=0)


def test_a_plan_that_was_copied_from_elsewhere(ck, plans, tmp_path):
    """It brings its sidecar, and that says what its tags are."""
    tags = f"{DIGITS},fp32,maxbatch.4"
    plan, sidecar = read_sidecar(ck, tags)
    uid = ck("search", "env", f"--tags={tags}").stdout.strip().rpartition(":")[2]
    ck("rm", f"env:{uid}", "--force")
    for name in ("model.plan", "model.plan.json"):
        shutil.copy(plan.with_name(name), tmp_path)
    ck("detect", "soft:model.tensorrt", f"--full_path={tmp_path / 'model.plan'}")
    assert read_sidecar(ck, tags) == (tmp_path / "model.plan", sidecar)
    explain(ck, tags, code=0)
    install(ck, tags)  # one of the same key beside it makes no difference
    explain(ck, tags, code=0)
    ck("rm", "env:*", f"--tags={tags}", "--force")
    install(ck, tags)
    (tmp_path / "model.plan.json").unlink()
    failed = ck("detect", "soft:model.tensorrt", f"--full_path={tmp_path / 'model.plan'}", code=2)
    assert "model.plan.json: no such file" in failed.stderr


def test_two_versions_of_tensorrt_are_not_chosen_between(ck, plans, tmp_path):
    info = "tensorrt-10.3.0.dist-info"
    files = {
        "tensorrt/__init__.py": '__version__ = "10.3.0"\n',
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tensorrt\nVersion: 10.3.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(tmp_path / "tensorrt-10.3.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    ck("install", "package", "--tags=lib,python-package,tensorrt", "--quiet",
       PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))  # fmt: skip
    tags = f"{DIGITS},fp32,maxbatch.4"
    try:
        for command in (["why", "loadgen", f"--tags={tags}"],
                        ["run", PROGRAM, f"--dep_add_tags.weights={tags}"]):  # fmt: skip
            said = ck(*command, code=2).stderr
            assert "several versions of TensorRT" in said
            assert "tensorrt-10" in said
            assert "tensorrt-rtx" in said
        explain(ck, f"{tags},tensorrt-rtx", code=0)
        # Asked for, and never another: it builds on the GPU only.
        assert "no plan is registered" in explain(ck, f"{tags},tensorrt-10", code=2)
        assert (
            "TensorRT 10.3.0 builds a plan on the GPU"
            in install(ck, f"{tags},tensorrt-10", code=2).stderr
        )
    finally:
        ck("rm", "env:*", "--tags=lib,python-package,tensorrt", "--force")


# Models that the user has detected


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
