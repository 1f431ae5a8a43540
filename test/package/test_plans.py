"""Plans by `ck install package`: TensorRT for RTX from PyPI builds them, without a GPU."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ..builders.installed_plans import (
    BUILDS_PLANS,
    CASES,
    DIGITS,
    NATIVE,
    check_plan,
    explain,
    find_one,
    install,
    plans,
    read_sidecar,
)

__all__ = ["plans"]
PROGRAM = "program:image-classification-tensorrt-loadgen-py"

pytestmark = BUILDS_PLANS


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
    printed = ck("run", PROGRAM, f"--dep_add_tags.weights={weights}",
                 "--env.CK_LOADGEN_SCENARIO=Offline", "--env.CK_BATCH_SIZE=50").stdout  # fmt: skip
    job = json.loads((ck.tmp / "job.json").read_text())
    assert job["recipe"]["conversion"]["precision"] == precision
    assert f"| model digits {precision} on ONNX Runtime" in printed
    assert job["recipe"]["input"]["dtype"] == (
        NATIVE[precision] if samples == "native" else samples
    )
    record = json.loads((ck.tmp / "record.json").read_text())
    assert record["accuracy"]["top1_percent"] >= 97


# A plan that is not what would be built now
