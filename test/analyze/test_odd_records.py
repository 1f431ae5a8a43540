"""One odd record is passed over or shown, and leaves all the others."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex

import pytest
from rich.console import Console

from ck_mlperf.analyze.page import build_page
from ck_mlperf.analyze.rows import make_run, read_experiments, read_runs
from ck_mlperf.analyze.show import show_points
from ck_mlperf.analyze.table import FORMATS, export, query
from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.settings import VARIABLES
from ck_mlperf.results.experiments import ExperimentFile
from ck_mlperf.results.migrate import read_record
from ck_mlperf.results.repeat import make_command

from ..builders.records import FAILURE, find_holder, list_paths, make_json
from .test_page import NOW

SERVER = {"scenario": "Server", "settings": {"loadgen": {"server_target_qps": 100.0}}}
HIDDEN = "\0\x1b\u202e\ufffe\ud800"
TEXT = f"=[bold]$x^{{${HIDDEN}"
ODD = [1e-308, 1e308, 2**53 - 1, 10**400, 0, TEXT, "", "a" * 10_000]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A row of each record that is accepted though one of its values is odd."""
    file = ExperimentFile("digits", tmp_path_factory.mktemp("entry") / "ckp-0.0001.json")
    found = {}
    for path in list_paths(make_json(**SERVER)):
        for value in ODD:
            record = make_json(**SERVER)
            find_holder(record, path)[path[-1]] = value
            try:
                read = read_record(json.dumps(record).encode())
                run = make_run(read, file, len(found)) if read else None
            except UserError:
                continue
            if run:
                found[repr(run).replace(f"repetition={len(found)}", "")] = run
    assert len(found) > 100
    return list(found.values())


@pytest.mark.slow
def test_odd_runs_are_on_the_page(runs):
    content = build_page(runs, NOW).decode()
    assert f"from {len(runs):,} recorded runs" in content
    assert "passed over" not in content
    assert not set(content) & set(HIDDEN)


def test_odd_runs_are_printed(runs):
    console = Console(file=io.StringIO(), width=80, highlight=False)
    show_points(runs, console)
    text = console.file.getvalue()
    text.encode()
    assert not set(text) & set(HIDDEN)


@pytest.mark.parametrize("suffix", FORMATS)
def test_odd_runs_are_exported(runs, tmp_path, suffix):
    export(runs, tmp_path / f"runs{suffix}")
    assert query(runs, "SELECT count(*) FROM runs").rows == [(len(runs),)]
    assert query(runs, "SELECT * FROM points").rows


def test_an_odd_repetition_leaves_the_others(save_point, tmp_path, capsys):
    slow = make_json(throughput={"samples_per_second": 1e-308})
    path = save_point(make_json(), slow, make_json(schema_version=999), make_json(1))
    runs, passed_over, foreign = read_experiments([tmp_path / "local"])
    assert [run.repetition for run in runs] == [0, 3]
    assert foreign == 0
    assert passed_over == [
        f"{path}: not a record of a run: samples_per_second is 1e-308",
        f"{path}: made by a newer ck-mlperf: version 999; update this checkout",
    ]
    assert capsys.readouterr().err.splitlines() == [
        *(f"passed over: {text}" for text in passed_over),
        "2 records were passed over, which could not be read",
    ]


def test_a_record_that_is_no_text(save_point, tmp_path):
    save_point(make_json())
    path = save_point(make_json())
    path.write_bytes(path.read_bytes().replace(b'"digits"', b'"\xff"', 1))
    assert len(read_runs([tmp_path / "local"])) == 1


def test_half_a_character_in_the_name_of_a_folder(save_point, tmp_path):
    save_point(make_json(), experiment="odd\udcff")
    (run,) = read_runs([tmp_path / "local"])
    assert run.experiment == "odd?"


def test_what_is_no_file_and_what_cannot_be_listed(save_point, tmp_path, monkeypatch):
    fifo = save_point(make_json()).with_name("ckp-f.0001.json")
    os.mkfifo(fifo)  # reading it would not end
    closed = save_point(experiment="closed").parent
    listdir = os.listdir

    def refuse(folder):
        if folder == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    runs, passed_over, _ = read_experiments([tmp_path / "local"])
    assert len(runs) == 1
    assert passed_over == [
        f"{closed}: Permission denied",
        f"{fifo}: not a regular file, but a device or the like",
    ]


def test_a_record_says_nothing_to_the_terminal(save_point, tmp_path, capsys):
    save_point(make_json(mode="\x1b[2J\u202e"), experiment="a\x1b[2Jb")
    assert read_runs([tmp_path / "local"]) == []
    said = capsys.readouterr().err
    assert "a\ufffd[2Jb" in said
    assert "\x1b" not in said
    assert "\u202e" not in said


NAME = "CK_BATCH_SIZE"
CODE = ["$(touch x)", "`touch x`", "1;touch x", "1\ntouch x", '"', "'", "a&b", "a|b", ">x", "*"]


@pytest.mark.parametrize(
    "arguments",
    [
        *(("net", {NAME: code}, [], None) for code in CODE),
        *(("net", {f"CK_{code}": "1"}, [], None) for code in CODE),
        *(("net", {}, [code], None) for code in CODE),
        *((code, {}, [], None) for code in [*CODE, "../net", "", "-x", "a b"]),
        ("net", {"LD_PRELOAD": "/tmp/x.so"}, [], None),
        ("net", {"CUDA_INJECTION64_PATH": "/tmp/x.so"}, [], None),
        ("net", {"CK_ENV_COMPILER_PYTHON_FILE": "/tmp/x"}, [], None),
    ],
)
def test_a_command_that_could_do_anything_else_is_none(arguments):
    assert make_command(*arguments) is None


def test_every_variable_may_be_in_a_command():
    given = {variable.name: "a b/c,1.5" for variable in VARIABLES}
    command = shlex.split(make_command("net", given, ["fp16"], "first.500"))
    assert command[3:-3] == [
        "--repetitions=1",
        *(f"--env.{name}=a b/c,1.5" for name in sorted(given)),
    ]


def test_a_record_with_code_in_it_is_shown_without_a_command(save_point, record, tmp_path):
    ours = record["settings"]["ours"]
    ours["CK_$(touch x)"] = {"value": "1", "origin": "env"}
    entry = save_point(record).parent
    note = {**FAILURE, "environment": {"CK_LOADGEN_CONF_FILE": "my$(touch x).conf"}}
    (entry / "failed-a1b2-3.json").write_text(json.dumps(note))
    runs = read_runs([tmp_path / "local"])
    assert [run.command for run in runs] == [None, None]
    content = build_page(runs, NOW).decode()
    assert "touch" not in content
    assert content.count("No command: the record has a variable that this program") == 2
