"""What a worker's machine checks before it carries out a run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

import ck_mlperf_remote
from ck_mlperf.explore.entry import Entry
from ck_mlperf.explore.runs import PERFORMANCE, Configuration, Network, schedule_run
from ck_mlperf.explore.worker import digest_checkout, make_request, name_slot, read_run

ROOT = Path(__file__).resolve().parents[3]


def test_a_machine_without_ck(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="no `ck` command, neither beside"):
        ck_mlperf_remote.work(make_request(None))
    ck = tmp_path / "ck"
    ck.write_text("#!/bin/sh\necho 'CK error: no such repository'\nexit 16\n")
    ck.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"no repository ck-mlperf: CK error: no such"):
        ck_mlperf_remote.work(make_request(None))


def test_a_request_is_read_as_it_was_made():
    for configuration in (
        Configuration(
            Network("resnet", "fp16", "tensorrt"), "MultiStream", 8, samples_per_query=16
        ),
        Configuration(Network(weights="model,onnx"), "Server", 1, target_qps=12.5),
    ):
        variables = {"CK_VERBOSE": "yes"}
        run = schedule_run(configuration, 2, PERFORMANCE, "program", variables, "sweep", ("a",))
        assert read_run(json.loads(make_request(run))["run"]) == run


@pytest.mark.parametrize("folder", ["src/ck_mlperf", "module/loadgen", "program/p", "soft/s"])
def test_the_digest_is_that_of_what_decides_a_run(tmp_path, folder):
    code = tmp_path / folder / "run.py"
    (code.parent / "tmp-x").mkdir(parents=True)
    code.write_text("1")
    before = digest_checkout(tmp_path)
    for made in ("tmp-x/record.json", "__pycache__/run.pyc", "ck_mlperf.egg-info/PKG-INFO"):
        (code.parent / made).parent.mkdir(exist_ok=True)
        (code.parent / made).write_text("{}")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("a")
    assert digest_checkout(tmp_path) == before
    code.write_text("2")
    changed = digest_checkout(tmp_path)
    code.rename(code.with_name("walk.py"))
    assert len({before, changed, digest_checkout(tmp_path)}) == 3


def test_the_digest_covers_what_this_repository_runs(tmp_path):
    """Whatever a run executes is in one of the folders: a copy of them has the same digest."""
    for folder in ("module", "package", "program", "script", "soft", "src"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True)
    assert digest_checkout(tmp_path) == digest_checkout()
    shutil.rmtree(tmp_path / "module")
    assert digest_checkout(tmp_path) != digest_checkout()


def test_an_entry_is_removed_also_where_its_addition_was_killed(tmp_path):
    entry, aliases = Entry(tmp_path, "s"), tmp_path / "experiment" / ".cm"
    entry.remove()  # there is none
    aliases.mkdir(parents=True)
    (aliases / "alias-a-s").write_text("0123456789abcdef\n")
    (aliases / "alias-u-0123456789abcdef").write_text("s\n")
    (entry.folder / ".cm").mkdir(parents=True)
    entry.remove()
    assert not entry.folder.exists()
    assert not list(aliases.iterdir())


def test_slots_are_named_by_machine_and_gpus():
    assert name_slot("node1", "") == "node1-all"
    assert name_slot("node1.x", "0,1") == "node1-x-0-1"
    assert name_slot("n", "GPU-8f/../..") == "n-GPU-8f"
