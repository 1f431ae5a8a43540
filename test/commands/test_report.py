"""`ck-mlperf report` and `ck-mlperf serve`."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ck_mlperf.common.errors import UserError

from ..builders.records import make_json


@pytest.fixture
def report(tmp_path, monkeypatch, save_point, record, command):
    """report(--option=value, ...): `ck-mlperf report` in an empty folder, of two experiments."""
    save_point(record, experiment="first")
    save_point(record, experiment="second")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return lambda *options: command("report", *options)


def test_it_writes_one_file(report):
    assert report().startswith("report.html: 1 point of 2 runs, 0.")
    assert [path.name for path in Path().iterdir()] == ["report.html"]
    first = Path("report.html").stat()
    assert "1 point of 1 run," in report("first")  # a page is replaced
    assert Path("report.html").stat().st_ino != first.st_ino


def test_the_page_says_what_was_passed_over(report, save_point):
    odd = make_json(throughput={"samples_per_second": 1e-308})
    path = save_point(odd, experiment="odd")
    assert report().startswith("report.html: 1 point of 2 runs, 0.")
    said = f"passed over: {path}: not a record of a run: samples_per_second is 1e-308"
    assert said in Path("report.html").read_text()


@pytest.mark.parametrize("file_format", ["png", "svg"])
def test_it_writes_plots(report, file_format):
    report("--plots=some/plots", f"--format={file_format}", "--out_file=a.html")
    assert sorted(path.name for path in Path("some/plots").iterdir()) == [
        f"latency-multistream-digits-fp32-onnxruntime-cpu.{file_format}",
        f"tail-latency-multistream-digits.{file_format}",
        f"throughput-multistream-digits.{file_format}",
    ]


def test_another_file_is_not_replaced(report):
    file = Path("report.html")
    for content in ("precious", "", "content=ck report loadgen"):
        file.write_text(content)
        with pytest.raises(
            UserError, match=r"(?s)report\.html exists and is not a page of this command.*--force"
        ):
            report()
        assert file.read_text() == content
    report("--force=yes")
    assert "<h1>" in file.read_text()


def test_where_it_cannot_be_written(report):
    with pytest.raises(UserError, match="there is no folder no; make it first"):
        report("--out_file=no/report.html")
    with pytest.raises(UserError, match="is a folder"):
        report("--out_file=..")


def test_no_runs(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no recorded runs to report on"):
        command("report")
    assert not list(tmp_path.glob("*.html"))


@pytest.mark.parametrize("option", ["--format=pdf", "--force=maybe", "--out=x.html"])
def test_options_that_there_are_not(refused, option):
    assert option.split("=")[0] in refused("report", option)


def test_what_cannot_be_served(local, monkeypatch, command, save_point, record):
    save_point(record)
    with pytest.raises(UserError, match=r"no experiment has the name other\. There are: digits"):
        command("serve", "other")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port} cannot be used .*0 for any"):
            command("serve", f"--port={port}")
    monkeypatch.setenv("CK_LOCAL_REPO", str(local / "no"))
    with pytest.raises(UserError, match="no such folder"):
        command("serve")


@pytest.mark.parametrize("port", ["x", "-1", "65536", "80.5", "\u0663"])
def test_what_is_no_port(refused, port):
    assert "want a port from 0 to 65535" in refused("serve", f"--port={port}")
