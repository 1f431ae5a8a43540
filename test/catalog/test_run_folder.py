"""The folder of a run: who has it, and whose results are taken; test/program runs it under CK."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ck_mlperf.catalog import run_folder
from ck_mlperf.loadgen.run_folder import RUN_ID

from ..builders.forks import start_fork
from ..common.test_locks import is_free

COMMAND = ["/bin/ck", "benchmark", "program:image-classification-tensorrt-loadgen-py"]
LEFT = ("record.json", "report.txt", "exit_code.txt", "mlperf_log_detail.txt", "tmp-1ab.sh")
PATIENCE_S = 60


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The program's folder, current as CK makes it before each hook."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder, "_held", {})
    return tmp_path


@pytest.fixture
def folder(program, monkeypatch):
    """The folder of a run that has left a complete record."""
    run_folder.enter_folder(COMMAND)
    monkeypatch.setenv(RUN_ID, "mine")
    record = {"run_id": "mine", "timing": {"wall_s": 1.5}}
    Path("record.json").write_text(json.dumps(record))
    Path("mlperf_log_detail.txt").write_text("complete")
    Path("exit_code.txt").write_text("0\n")
    return program / "tmp"


@pytest.mark.parametrize(
    ("flags", "name"), [([], "tmp"), (["--tmp_dir="], "tmp"), (["--tmp_dir=tmp-host-0"], None)]
)
def test_it_is_entered_without_an_earlier_runs_results(program, flags, name):
    folder = program / (name or "tmp-host-0")
    (folder / ".loadgen-unfinished-abc").mkdir(parents=True)
    for left in (*LEFT, "job.json", "kept.txt"):
        (folder / left).write_text("old")
    run_folder.enter_folder([*COMMAND, *flags])
    assert os.path.samefile(".", folder)
    assert sorted(os.listdir()) == [".run.lock", "kept.txt"]
    os.chdir(program)
    run_folder.enter_folder([*COMMAND, *flags])  # a repetition does not wait for itself
    assert not is_free(folder / ".run.lock")


def test_random_folders_are_refused(program, capsys):
    with pytest.raises(run_folder.UserError, match="want --tmp_dir=NAME"):
        run_folder.enter_folder([*COMMAND, "--generate_rnd_tmp_dir=yes"])


def test_a_second_one_waits_and_says_for_whom(program):
    """A sweep's worker has a folder of its own, and does not."""
    entered, said = os.pipe(), os.pipe()

    def enter(name, *flags):
        sys.stderr = os.fdopen(said[1], "w")
        run_folder.enter_folder([*COMMAND, *flags])
        Path("record.json").write_text(name)
        os.write(entered[1], name.encode())
        signal.pause()

    def read(pipe):
        assert select.select([pipe[0]], [], [], PATIENCE_S)[0]
        return os.read(pipe[0], 1000).decode()

    first = start_fork(enter, "1")
    assert read(entered) == "1"
    worker = start_fork(enter, "2", "--tmp_dir=tmp-host-0")
    assert read(entered) == "2"
    second = start_fork(enter, "3")
    words = read(said)
    assert words.startswith(f"waiting: a run (process {first.pid}) is using {program / 'tmp'}")
    assert "--tmp_dir=NAME" in words
    assert (program / "tmp" / "record.json").read_text() == "1"
    first.kill()
    assert read(entered) == "3"
    for process in (first, worker, second):
        process.kill()
        process.join()


def test_its_own_record_is_taken(folder):
    assert run_folder.finish_run()["execution_time"] == 1.5


@pytest.mark.parametrize("of", ["another", None])
def test_another_runs_record_is_not_taken(folder, capsys, of):
    (folder / "record.json").write_text(json.dumps({"run_id": of, "timing": {"wall_s": 1.5}}))
    with pytest.raises(SystemExit) as ended:
        run_folder.finish_run()
    assert ended.value.code == 1
    assert f"{folder / 'record.json'} is the record of another run" in capsys.readouterr().err


@pytest.mark.parametrize("code", [1, 2, 120, 130])
def test_the_exit_code_counts_however_complete_the_record(folder, capsys, code):
    (folder / "exit_code.txt").write_text(f"{code}\n")
    with pytest.raises(SystemExit) as ended:
        run_folder.finish_run()
    assert ended.value.code == code
    assert capsys.readouterr().err == ""  # the program has said what went wrong
    assert os.listdir(folder) == [".run.lock"]


@pytest.mark.parametrize("code", ["", "137\n", "139\n", None])
def test_a_program_that_said_nothing_was_killed(folder, capsys, code):
    (folder / "exit_code.txt").unlink()
    if code is not None:
        (folder / "exit_code.txt").write_text(code)
    with pytest.raises(SystemExit) as ended:
        run_folder.finish_run()
    assert ended.value.code == 1
    assert "killed" in capsys.readouterr().err
    assert os.listdir(folder) == [".run.lock"]


def test_a_good_end_without_a_record_is_another_runs(folder, capsys):
    (folder / "record.json").unlink()
    with pytest.raises(SystemExit) as ended:
        run_folder.finish_run()
    assert ended.value.code == 1
    assert "killed" in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, 3])
def test_the_script_keeps_the_exit_code(tmp_path, code):
    script = f"(exit {code})\n{run_folder.KEEP_EXIT_CODE}\n"
    process = subprocess.run(["bash", "-c", script], cwd=tmp_path, check=False)
    assert process.returncode == code
    assert (tmp_path / "exit_code.txt").read_text() == f"{code}\n"
