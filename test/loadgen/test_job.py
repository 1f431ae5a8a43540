"""The job file: written and read again, and what is wrong with one."""

import dataclasses
import json
from pathlib import Path

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.job import Job, read_job
from ck_mlperf.loadgen.settings import read_settings

JOB = Job(
    settings=read_settings({"CK_LOADGEN_SCENARIO": "Offline", "CK_CUDA_DEVICES": "0,1"}),
    model=Path("/models/a.plan"),
    sha256="0" * 64,
    recipe={"name": "a"},
    images=Path("/images"),
    engine="tensorrt",
    external_files=["weights.bin"],
    loadgen_native=Path("/libloadgen.so"),
    passed={"CUDA_VISIBLE_DEVICES": "0"},
    deps=[{"key": "weights", "tags": ["model"], "version": "1", "uoa": "0123456789abcdef"}],
    run_id="1a2b",
    ck={"pid": 4711, "started": 42},
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "job.json"


@pytest.mark.parametrize(
    "job", [JOB, dataclasses.replace(JOB, engine="onnx", loadgen_native=None, deps=[])]
)
def test_a_job_is_read_as_it_was_written(path, job):
    path.write_text(job.to_json())
    assert read_job(path) == job
    assert read_job(path).settings.given == {"CK_LOADGEN_SCENARIO", "CK_CUDA_DEVICES"}


def test_what_a_job_holds():
    assert json.loads(JOB.to_json()) == {
        "settings": {"CK_LOADGEN_SCENARIO": "Offline", "CK_CUDA_DEVICES": [0, 1]},
        "model": "/models/a.plan",
        "sha256": "0" * 64,
        "recipe": {"name": "a"},
        "images": "/images",
        "engine": "tensorrt",
        "external_files": ["weights.bin"],
        "loadgen_native": "/libloadgen.so",
        "passed": {"CUDA_VISIBLE_DEVICES": "0"},
        "deps": [{"key": "weights", "tags": ["model"], "version": "1", "uoa": "0123456789abcdef"}],
        "run_id": "1a2b",
        "ck": {"pid": 4711, "started": 42},
    }


def test_some_keys_may_be_left_out(path):
    values = json.loads(JOB.to_json())
    for key in ("engine", "external_files", "loadgen_native", "passed", "deps", "run_id", "ck"):
        del values[key]
    path.write_text(json.dumps(values))
    job = read_job(path)
    assert (job.engine, job.loadgen_native, job.passed, job.deps) == ("onnx", None, {}, ())
    assert (job.run_id, job.ck) == (None, {})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model": None}, "model: missing"),
        ({"environment": {}}, "environment: no such key"),
        ({"model": 1, "recipe": []}, "model: want text; recipe: want an object"),
        ({"deps": {}}, "deps: want a list"),
        ({"engine": "tensorflow"}, "engine: want one of onnx, onnx-cuda, tensorrt"),
        ({"engine": ["onnx"]}, "engine: want text"),
        ({"settings": {"CK_BATCH_SIZE": "many"}}, "CK_BATCH_SIZE=many: want a whole number"),
        ({"settings": {"CK_BATCH": 1}}, "CK_BATCH: no such variable"),
    ],
)
def test_what_is_wrong_is_said(path, change, problem):
    path.write_text(json.dumps(json.loads(JOB.to_json()) | change))
    with pytest.raises(UserError) as caught:
        read_job(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert problem in str(caught.value)


@pytest.mark.parametrize(("text", "problem"), [("{", "not JSON"), ("[]", "want a JSON object")])
def test_no_job_at_all(path, text, problem):
    path.write_text(text)
    with pytest.raises(UserError, match=problem):
        read_job(path)
