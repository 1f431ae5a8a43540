"""The examples run as their README says."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ck_mlperf.common.files import hash_file
from ck_mlperf.loadgen.job import read_job
from ck_mlperf.models.recipe import load_model_recipe


@pytest.fixture
def checkout(repository, tmp_path) -> Path:
    """A folder that looks like this checkout and may be written to."""
    for name in ("package", "program", "src"):
        (tmp_path / name).symlink_to(repository / name)
    shutil.copytree(
        repository / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("tmp")
    )
    return tmp_path


def run_block(checkout: Path, environment: dict[str, str], number: int) -> str:
    """What the shell block of examples/README.md prints, in the root of the checkout."""
    readme = (checkout / "examples" / "README.md").read_text()
    scripts = re.findall(r"^```sh\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert len(scripts) == 3
    programs = f"{Path(sys.executable).parent}:{environment['PATH']}"
    process = subprocess.run(
        ["bash", "-euc", scripts[number]],
        cwd=checkout,
        env=environment | {"PATH": programs},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.slow
def test_the_job_and_a_test_run_without_ck(checkout, library_environment):
    printed = run_block(checkout, library_environment, 0)
    assert "LATENCIES (in nanoseconds and fps)" in printed
    record = json.loads((checkout / "examples" / "tmp" / "record.json").read_text())
    assert record["program"] == "image-classification-tensorrt-loadgen-py"
    assert record["accuracy"]["total"] == 500
    assert record["accuracy"]["top1_percent"] >= 97
    assert record["counts"]["samples"] == 2000
    ours = record["settings"]["ours"]
    assert ours["CK_BATCH_SIZE"] == {"value": 16, "origin": "env"}
    assert ours["CK_LOADGEN_BUFFER_SIZE"] == {"value": 500, "origin": "default"}
    printed = run_block(checkout, library_environment, 1)
    assert re.search(r"^[\d,]+ samples/s, VALID$", printed, re.MULTILINE)


def test_a_plan_is_built_without_ck(checkout, library_environment):
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("NOT RUN: needs TensorRT for RTX (pip install tensorrt-rtx-cu13)")
    printed = run_block(checkout, library_environment, 2)
    assert "examples/tmp/plan/model.plan: fp16, up to 32 images, tensorrt_rtx" in printed


def test_the_job_names_the_model_that_is_shipped(repository):
    job = read_job(repository / "examples" / "job.json")
    model = repository / "package" / "model-onnx-digits" / "digits.onnx"
    assert job.recipe == load_model_recipe(model).to_dict()
    assert job.sha256 == hash_file(model)


def test_records_are_read_without_ck(repository, tmp_path, library_environment):
    record = json.loads((repository / "test/data/records/version-3-first.json").read_text())
    entry = tmp_path / "experiment" / "mine"
    (entry / ".cm").mkdir(parents=True)
    (entry / ".cm" / "meta.json").write_text("{}")
    point = {"characteristics_list": [{"run": record}]}
    (entry / "ckp-0123456789abcdef.0001.json").write_text(json.dumps(point))
    program = repository / "examples" / "read_records.py"
    printed = subprocess.run(
        [sys.executable, program, tmp_path, "mi*"],
        env=library_environment, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    rate = record["throughput"]["samples_per_second"]
    name, scenario = record["model"]["name"], record["scenario"]
    assert printed == f"mine: {name}, {scenario}, {rate:,.0f} samples/s\n"
