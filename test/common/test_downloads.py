"""Downloads from a server on this machine, which misbehaves as servers do."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import random
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ck_mlperf.common import downloads as module
from ck_mlperf.common.downloads import fetch, parse_hash
from ck_mlperf.common.errors import UserError

CONTENT = random.Random(0).randbytes(200_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Server(http.server.ThreadingHTTPServer):
    """/file is whole; /cut ends early, /page is HTML, /moved leads to /file, all else is 404."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.end_headers()
            return
        body = {
            "/file": CONTENT,
            "/cut": CONTENT[: len(CONTENT) // 2],
            "/short": CONTENT[: len(CONTENT) // 2],
            "/page": b"<!DOCTYPE html><title>Sorry</title>",
            "/empty": b"",
        }.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT if self.path == "/cut" else body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "out" / "model.onnx"


def assert_nothing_is_left(output: Path) -> None:
    assert not output.parent.exists() or not list(output.parent.iterdir())


@pytest.mark.parametrize("known_hash", [SHA256, MD5, SHA256.upper()])
@pytest.mark.parametrize("path", ["file", "moved"])
def test_a_download(server, output, known_hash, path):
    fetch(output, known_hash, [server.url(path)])
    assert output.read_bytes() == CONTENT
    assert os.listdir(output.parent) == [output.name]


def test_a_file_of_which_only_the_md5_is_known(server, output, capsys):
    fetch(output, MD5, [server.url("file")])
    printed = capsys.readouterr().out
    assert "checked by its md5 alone" in printed
    assert f"--env.PACKAGE_HASH={SHA256}" in printed
    fetch(output, SHA256, [server.url("file")])
    assert capsys.readouterr().out == ""


def test_a_file_that_is_there_is_not_downloaded_again(server, output):
    fetch(output, SHA256, [server.url("file")])
    server.asked.clear()
    fetch(output, SHA256, [server.url("file")])
    assert server.asked == []


def test_a_file_of_another_hash_is_replaced(server, output):
    output.parent.mkdir()
    output.write_bytes(CONTENT[:-1])
    fetch(output, SHA256, [server.url("file")])
    assert output.read_bytes() == CONTENT


def test_a_file_of_another_hash_stays_where_nothing_better_comes(server, output):
    output.parent.mkdir()
    output.write_bytes(b"older")
    with pytest.raises(UserError):
        fetch(output, SHA256, [server.url("page")])
    assert output.read_bytes() == b"older"
    assert os.listdir(output.parent) == [output.name]


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("cut", r"broke off.*100000|cut off: 100000 of 200000 bytes"),
        ("short", r"100000 bytes with sha256 [0-9a-f]{64}, expected " + SHA256[7:]),
        ("page", "an HTML page in place of the file"),
        ("empty", "an empty file"),
        ("none", "the server answers 404"),
    ],
)
def test_what_is_wrong_with_a_download_is_said(server, output, path, what):
    with pytest.raises(UserError, match=f"(?s){server.url(path)}: .*(?:{what}).*--mirror.*--file"):
        fetch(output, SHA256, [server.url(path)])
    assert_nothing_is_left(output)


def test_no_server(output):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file"
        with pytest.raises(UserError, match="no connection"):
            fetch(output, SHA256, [url])
    assert_nothing_is_left(output)


def test_the_next_source_is_tried(server, output):
    fetch(output, SHA256, [server.url("none"), server.url("page"), server.url("file")])
    assert output.read_bytes() == CONTENT
    assert server.asked == ["/none", "/page", "/file"]


def test_each_failed_source_is_named(server, output):
    with pytest.raises(UserError) as error:
        fetch(output, SHA256, [server.url("none"), server.url("cut"), "ftp://host/file"])
    for path in ("none", "cut", "ftp://host/file"):
        assert path in str(error.value)


def test_a_local_file_is_checked_and_copied(server, output, tmp_path):
    local = tmp_path / "got by #other means.bin"
    local.write_bytes(CONTENT)
    fetch(output, SHA256, [server.url("file")], local)
    assert output.read_bytes() == CONTENT
    assert server.asked == []
    assert local.exists()


@pytest.mark.parametrize("content", [None, CONTENT[:10]])
def test_a_local_file_that_is_wrong(output, tmp_path, content):
    local = tmp_path / "local.bin"
    if content is not None:
        local.write_bytes(content)
    with pytest.raises(UserError, match=r"local\.bin"):
        fetch(output, SHA256, [], local)
    assert_nothing_is_left(output)


def test_a_file_url(output, tmp_path):
    (tmp_path / "a b.bin").write_bytes(CONTENT)
    fetch(output, SHA256, [(tmp_path / "a b.bin").as_uri()])
    assert output.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "known_hash", ["", "sha256:", "sha256:12", SHA256[7:], f"sha1:{40 * '0'}", f"md5:{32 * 'g'}"]
)
def test_a_hash_that_is_none(known_hash):
    with pytest.raises(UserError, match="64 hex digits"):
        parse_hash(known_hash)


def test_the_output_is_a_folder(output):
    output.mkdir(parents=True)
    with pytest.raises(UserError, match="is a folder"):
        fetch(output, SHA256, [])


def test_a_folder_that_cannot_be_written(server):
    with pytest.raises(UserError, match="cannot write /proc/none/model"):
        fetch(Path("/proc/none/model"), SHA256, [server.url("file")])


def test_a_full_disk(server, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NOT RUN: needs the right to mount a small disk")
    try:
        with pytest.raises(UserError, match="No space left on device"):
            fetch(disk / "file", SHA256, [server.url("file"), server.url("file")])
        assert list(disk.iterdir()) == []
        assert server.asked == ["/file"]  # another source cannot help
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_stop_in_the_midst_leaves_no_file(server, output, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "hash_file", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch(output, SHA256, [server.url("file")])
    assert_nothing_is_left(output)


def test_the_command_fetches_and_unpacks(server, output, tmp_path, run_module):
    archive = tmp_path / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        info = tarfile.TarInfo("val.txt")
        info.size = 5
        packed.addfile(info, io.BytesIO(b"a 1\n\n"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    arguments = ("--url", server.url("none"), "--mirror", archive.as_uri(), "--output", output)
    for _ in range(2):  # the second time there is nothing to do
        done = run_module(
            "common.downloads",
            *arguments,
            "--hash",
            f"sha256:{digest}",
            "--unpack",
            tmp_path / "new",
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "new" / "val.txt").read_text() == "a 1\n\n"


def test_the_command_refuses_with_one_message(server, output, run_here):
    for arguments in (("--url", server.url("page")), ()):
        done = run_here("common.downloads", *arguments, "--hash", SHA256, "--output", output)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
    assert_nothing_is_left(output)
