"""Which TensorRT is taken, of those that the interpreter finds."""

from __future__ import annotations

import sys

import pytest

from ck_mlperf.catalog.host import Host, Tensorrt, has_driver, run_module, survey_host
from ck_mlperf.common.errors import UserError
from ck_mlperf.machine.gpus import Gpu

from ..fakes.kernel import make_catalog

H200 = Gpu("NVIDIA H200", "9.0")
GTX_1080 = Gpu("NVIDIA GeForce GTX 1080", "6.1")
RTX_4090 = Gpu("NVIDIA GeForce RTX 4090", "8.9")

RTX = Tensorrt("tensorrt_rtx", "1.7.1")
EIGHT = Tensorrt("tensorrt", "8.6.1")
TEN = Tensorrt("tensorrt", "10.13.0.35")
ELEVEN = Tensorrt("tensorrt", "11.0.0")


@pytest.mark.parametrize(
    ("asked", "installed", "gpus", "chosen"),
    [
        (None, [RTX], [], "tensorrt-rtx"),
        (None, [RTX], [RTX_4090], "tensorrt-rtx"),
        (None, [EIGHT], [GTX_1080], "tensorrt-8"),
        (None, [ELEVEN], [], "tensorrt-11"),
        # The one that runs here.
        (None, [RTX, TEN], [H200], "tensorrt-10"),
        # None installed: the one that pip gets and that runs here.
        (None, [], [], "tensorrt-rtx"),
        (None, [], [RTX_4090], "tensorrt-rtx"),
        (None, [], [H200], "tensorrt"),
        # Never another than asked for.
        ("tensorrt-rtx", [RTX, TEN], [H200], "tensorrt-rtx"),
        ("tensorrt-8", [RTX, TEN], [], "tensorrt-8"),
        ("tensorrt-10", [], [RTX_4090], "tensorrt-10"),
    ],
)
def test_the_flavour_that_is_taken(asked, installed, gpus, chosen):
    assert Host(tuple(installed), tuple(gpus)).choose_flavour(asked) == chosen


@pytest.mark.parametrize(
    ("installed", "gpus", "words"),
    [
        ([RTX, TEN], [], ["tensorrt-10", "tensorrt-rtx", "add one of these tags"]),
        ([RTX, TEN], [RTX_4090], ["tensorrt-10", "tensorrt-rtx"]),
        ([EIGHT, TEN], [H200], ["tensorrt-8", "tensorrt-10"]),
        ([RTX], [H200], ["NVIDIA H200", "9.0", "lib,python-package,tensorrt", "device.cuda"]),
        ([RTX], [GTX_1080], ["GTX 1080", "6.1"]),
    ],
)
def test_a_flavour_is_not_chosen_by_guessing(installed, gpus, words):
    with pytest.raises(UserError) as raised:
        Host(tuple(installed), tuple(gpus)).choose_flavour(None)
    assert all(word in str(raised.value) for word in words)


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """(an interpreter, how often it was started)"""
    python, started = tmp_path / "python3", tmp_path / "started"
    python.write_text(f'#!/bin/sh\necho started >> {started}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python), lambda: len(started.read_text().split())


def test_one_process_tells_which_tensorrts_there_are(counted, fake_tensorrt):
    python, count_starts = counted
    catalog, kernel = make_catalog()
    eight, ten = str(fake_tensorrt("8.6.1")), str(fake_tensorrt("10.13.0.35"))
    kernel.add("8", "lib,python-package,tensorrt,tensorrt-8", eight)
    for _ in range(2):
        host = survey_host(catalog, python, lambda: [H200])
        assert EIGHT in host.installed
        assert host.find("tensorrt-8") == EIGHT
        assert host.find("tensorrt-10") is None
        assert host.gpus == (H200,)
    assert count_starts() == 1
    # Another TensorRT, which CK has installed meanwhile.
    kernel.add("10", "lib,python-package,tensorrt,tensorrt-10", ten)
    assert survey_host(catalog, python, lambda: [H200]).find("tensorrt-10") == TEN
    assert count_starts() == 2


def test_gpus_that_cannot_be_asked_for():
    def find():
        raise UserError("this nvidia-smi does not tell")

    with pytest.raises(UserError, match="does not tell"):
        survey_host(make_catalog()[0], sys.executable, find)


def test_a_driver_is_there_where_it_names_a_gpu():
    assert has_driver(lambda: [H200])


def test_a_process_that_fails_ends_the_command_with_its_own_words(capfd):
    with pytest.raises(SystemExit) as ended:
        run_module(sys.executable, "models.recipe", ["no-such-file.onnx"])
    assert ended.value.code == 2
    assert "no-such-file.onnx" in capfd.readouterr().err
