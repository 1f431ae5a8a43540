"""The rules around a run; `test/program/` runs it under the real CK."""

from __future__ import annotations

import json
import os

import pytest

from ck_mlperf.catalog import program
from ck_mlperf.common.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that the program runs in."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("value", ["$HOME", "a;b", "a&b", "`id`", "'", '"', "a\nb", "(x)"])
def test_values_for_a_shell_are_refused(value):
    with pytest.raises(UserError, match="CK_LOADGEN_CONF_FILE"):
        program.check_plain({"CK_LOADGEN_CONF_FILE": value})


@pytest.mark.parametrize("name", ["CK_$(id)", "CK_A;id", "CK_A B", "CK_\n", "", "1", "CK_\xe4"])
def test_names_for_a_shell_are_refused(name):
    with pytest.raises(UserError, match="cannot pass these variables on"):
        program.check_plain({"CK_BATCH_SIZE": "1", name: "1"})


@pytest.mark.parametrize("value", ["", "/a/b-c_d.conf", "1,2", "1e-3", "a b"])
def test_plain_values_pass(value):
    program.check_plain({"CK_LOADGEN_CONF_FILE": value})


def test_stale_results_are_removed(folder):
    for name in ("job.json", "record.json", "failure.json", "report.txt", "mlperf_log_detail.txt"):
        (folder / name).write_text("old")
    (folder / "kept.txt").write_text("mine")
    program.remove_stale_results()
    assert os.listdir(folder) == ["kept.txt"]


def test_a_program_that_said_nothing_was_killed(folder, capsys):
    with pytest.raises(SystemExit) as ended:
        program.finish_run()
    assert ended.value.code == 1
    assert "killed" in capsys.readouterr().err


def test_a_program_that_failed_ends_the_command_with_its_code(folder):
    (folder / "failure.json").write_text(json.dumps({"exit_code": 2}))
    (folder / "mlperf_log_detail.txt").write_text("half of it")
    with pytest.raises(SystemExit) as ended:
        program.finish_run()
    assert ended.value.code == 2
    assert os.listdir(folder) == ["failure.json"]
