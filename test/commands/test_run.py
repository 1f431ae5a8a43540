"""`ck-mlperf run`: what it refuses, and what it leaves after an error.

What it leaves after a run: test/test_examples.py, without CK, and test/program/test_run.py.
"""

import contextlib
import errno
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ck_mlperf.commands import main
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file
from ck_mlperf.common.processes import read_start
from ck_mlperf.loadgen.job import Job
from ck_mlperf.loadgen.run_folder import RUN_ID
from ck_mlperf.loadgen.settings import RunSettings
from ck_mlperf.models.model_file import combine_hashes
from ck_mlperf.models.recipe import load_model_recipe
from ck_mlperf.results import job_run

from ..builders.real_run import MODEL, ROOT
from ..builders.records import make_record
from ..common.test_locks import is_free

JOB = ROOT / "examples" / "job.json"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with what an earlier run left."""
    monkeypatch.chdir(tmp_path)
    for name in ("record.json", "report.txt", "mlperf_log_summary.txt", "mlperf_log_detail.txt"):
        (tmp_path / name).write_text("of an earlier run")
    (tmp_path / ".loadgen-unfinished-abc").mkdir()
    return tmp_path


def exit_code(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["run", *arguments])
    return ended.value.code


def test_an_error_leaves_nothing_that_looks_like_a_result(folder, capsys):
    (folder / "job.json").write_text("{}")
    assert exit_code("job.json") == 2
    assert capsys.readouterr().err.startswith("error: job.json: settings: missing; model: missing")
    assert sorted(os.listdir(folder)) == [".run.lock", "job.json"]


def test_a_job_that_is_not_there(folder, capsys):
    assert exit_code("job.json") == 2
    assert capsys.readouterr().err == "error: job.json: No such file or directory\n"
    assert os.listdir(folder) == [".run.lock"]


@pytest.mark.parametrize(
    ("raised", "code"), [(ZeroDivisionError, 1), (KeyboardInterrupt, 130), (UserError, 2)]
)
def test_exit_codes(folder, monkeypatch, raised, code):
    def fail(path):
        raise raised("in the middle")

    monkeypatch.setattr(job_run, "read_job", fail)
    with pytest.raises((SystemExit, ZeroDivisionError)) as ended:
        main(["run", "job.json"])
    assert getattr(ended.value, "code", 1) == code
    assert os.listdir(folder) == [".run.lock"]


@pytest.fixture
def finished(folder, monkeypatch):
    """A folder with a job, whose test ends at once; notes whether another run could begin then."""
    shutil.copy(JOB, folder)
    was_free = []

    def run_job(job, program):
        was_free.append(is_free(folder / ".run.lock"))
        return make_record()

    monkeypatch.setattr(job_run, "run_job", run_job)
    return was_free


class FullDisk(io.StringIO):
    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_error_after_the_record_was_written_is_one(folder, finished, capsys):
    with contextlib.redirect_stdout(FullDisk()):
        assert exit_code("job.json") == 2
    assert "error: No space left on device" in capsys.readouterr().err
    assert sorted(os.listdir(folder)) == [".run.lock", "job.json"]


def test_a_run_without_ck_has_the_folder_to_itself(folder, finished):
    assert exit_code("job.json") == 0
    assert finished == [False]
    assert (folder / "record.json").exists()


def test_a_run_by_ck_leaves_the_folder_to_ck_and_ends_with_it(folder, finished, monkeypatch):
    monkeypatch.setenv(RUN_ID, "1a2b")
    job = json.loads(JOB.read_text())
    job |= {"run_id": "1a2b", "ck": {"pid": os.getpid(), "started": read_start(os.getpid())}}
    (folder / "job.json").write_text(json.dumps(job))
    assert exit_code("job.json") == 0
    assert finished == [True]


def test_another_runs_job_is_refused(folder, finished, monkeypatch, capsys):
    monkeypatch.setenv(RUN_ID, "1a2b")
    assert exit_code("job.json") == 2
    assert "error: job.json: another run has replaced it" in capsys.readouterr().err
    assert finished == []


def test_a_wrong_command_line_touches_nothing(folder):
    before = sorted(os.listdir(folder))
    assert exit_code() == 2
    assert exit_code("job.json", "--fast") == 2
    assert sorted(os.listdir(folder)) == before


def test_help_names_the_settings(capsys):
    assert exit_code("--help") == 0
    printed = capsys.readouterr().out
    assert "CK_LOADGEN_SCENARIO" in printed
    assert printed.count("\n  ck-mlperf run ") == 3


class Opened(contextlib.AbstractContextManager):
    """An engine that has read a file of this sha256, or could not."""

    def __init__(self, sha256, error=None):
        self.model_sha256 = sha256
        self.error = error

    def __enter__(self):
        if self.error is not None:
            raise self.error

    def __exit__(self, *_):
        pass


def test_what_an_engine_has_read_is_what_was_registered(tmp_path):
    model = tmp_path / "model"
    model.write_bytes(b"none")

    def check(kind, registered, engine, external=()):
        job = Job(RunSettings(), model, registered, {}, Path(), kind, external_files=external)
        with contextlib.ExitStack() as opened:
            job_run.open_checked(job, engine, opened)

    check("tensorrt", "a" * 64, Opened("a" * 64))
    check("onnx", hash_file(model), Opened(None))
    with pytest.raises(UserError, match=r"has changed since it was registered .*the plan's tags"):
        check("tensorrt", "b" * 64, Opened("a" * 64))
    with pytest.raises(UserError, match=r"has changed.*ck detect soft:model\.onnx"):
        check("onnx", "a" * 64, Opened("b" * 64))
    # Damaged since: that it has changed says more than what the library makes of it.
    with pytest.raises(UserError, match="has changed since"):
        check("onnx", "a" * 64, Opened(None, UserError("cannot be read")))
    with pytest.raises(UserError, match="cannot be read"):
        check("onnx", hash_file(model), Opened(None, UserError("cannot be read")))
    (tmp_path / "weights").write_bytes(b"weights")
    whole = combine_hashes("a" * 64, model, ["weights"])
    check("onnx", whole, Opened("a" * 64), ["weights"])
    (tmp_path / "weights").write_bytes(b"WEIGHTS")
    with pytest.raises(UserError, match="has changed since"):
        check("onnx", whole, Opened("a" * 64), ["weights"])


def test_the_precision_is_the_sidecars_or_the_recipes(tmp_path, monkeypatch):
    monkeypatch.setattr("ck_mlperf.tensorrt.plan_file.read_sidecar", lambda path: Sidecar)
    recipe = load_model_recipe(MODEL)
    job = Job(RunSettings(), tmp_path / "model.plan", "", {}, Path(), "tensorrt")
    assert job_run.find_precision(job, recipe) == "tf32"
    assert job_run.find_precision(replace(job, engine="onnx"), recipe) == "fp32"


class Sidecar:
    key = SimpleNamespace(precision="tf32")
