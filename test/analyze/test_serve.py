"""`ck serve loadgen`: a real server, which is asked what it must not answer, too."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from types import SimpleNamespace

import pytest

from ck_mlperf.analyze.serve import LivePage


def ask(server, path="/", method="GET", **headers) -> tuple[HTTPResponse, bytes]:
    """The answer to a request, which is sent as it stands. A header's name has _ for -."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def start_serve(local: Path) -> subprocess.Popen[str]:
    """`ck-mlperf serve` as a process, on any port. local: CK's local repository."""
    return subprocess.Popen(
        [sys.executable, "-m", "ck_mlperf", "serve", "--port=0"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CK_LOCAL_REPO": str(local)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def server(save_point, record, serve):
    save_point(record)
    return serve()


def test_the_page_and_how_it_may_be_used(server):
    answer, content = ask(server)
    assert answer.status == 200
    assert answer.getheader("Content-Type") == "text/html; charset=utf-8"
    assert b"<h1>LoadGen runs</h1>" in content
    policy = answer.getheader("Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy.endswith("connect-src 'self'; frame-ancestors 'none'")
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert answer.getheader("Cache-Control") == "no-store"
    assert answer.getheader("Server") is None

    answer, content = ask(server, method="HEAD")
    assert (answer.status, content) == (200, b"")


def test_ctrl_c_ends_it_without_a_word(save_point, record, tmp_path):
    save_point(record)
    process = start_serve(tmp_path / "local")
    try:
        said = process.stdout.readline()
        port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/ has the page; .*\n", said)[1])
        assert b"1 point from 1 recorded run" in ask(SimpleNamespace(port=port))[1]
        process.send_signal(signal.SIGINT)
        assert process.communicate() == ("", "")
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_it_is_not_made_again_unless_a_file_changed(server, save_point, record):
    answer, content = ask(server)
    version = answer.getheader("ETag")
    assert ask(server)[1] == content  # with the time at which it was made
    answer, nothing = ask(server, If_None_Match=version)
    assert (answer.status, nothing, answer.getheader("ETag")) == (304, b"", version)

    record["engine"]["batch"] = 77
    save_point(record, experiment="new")
    answer, content = ask(server, If_None_Match=version)
    assert answer.status == 200
    assert answer.getheader("ETag") != version
    assert b"batch 77" in content
    assert b"2 points from 2 recorded runs" in content


def test_other_hosts_are_refused(idle_server):
    for host in ("127.0.0.1", "127.0.0.1:8265", "localhost:1"):
        assert ask(idle_server, Host=host)[0].status == 200
    for host in (
        "evil.example",
        "evil.example:8265",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8265",
        "evil.example/127.0.0.1",
        "0.0.0.0",
        "[::1]:8265",
        "",
    ):
        answer, content = ask(idle_server, Host=host)
        assert answer.status == 400, host
        assert content == b"Invalid host header"
        assert answer.getheader("X-Content-Type-Options") == "nosniff"


def test_other_methods_are_refused(idle_server):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        answer, content = ask(idle_server, method=method, Content_Length="0")
        assert answer.status == 405, method
        assert b"LoadGen" not in content


def test_no_path_leads_anywhere(idle_server):
    for path in (
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/experiment/digits/ckp-0000000000000001.0001.json",
        "/page.css",
        "/\\..\\x",
        "/%00",
    ):
        answer, content = ask(idle_server, path)
        assert answer.status == 404, path
        assert content == b"Not Found"


def test_it_listens_on_one_address(idle_server):
    # All of 127.* is this machine: who listens on every address is found at this one, too.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", idle_server.port), timeout=5)


def test_files_that_are_being_written(save_point, record, serve, capfd):
    whole = save_point(record)
    server = serve()
    text = whole.read_text()
    version = ask(server)[0].getheader("ETag")
    for part in ("", text[: len(text) // 2]):  # CK writes in place: what was there is kept
        whole.write_text(part)
        answer, content = ask(server, If_None_Match=version)
        assert answer.status == 200
        assert b"1 point from 1 recorded run" in content
        assert b"passed over: " in content
        assert b"not JSON" in content
        version = answer.getheader("ETag")
        assert ask(server, If_None_Match=version)[0].status == 304
    whole.write_text(text)
    assert b"passed over: " not in ask(server)[1]

    half = save_point(record, experiment="half")
    half.write_text(half.read_text()[:100])
    assert b"1 point from 1 recorded run" in ask(server)[1]
    half.unlink()
    assert b"passed over: " not in ask(server)[1]
    assert capfd.readouterr() == ("", "")


def test_no_link_leads_out_of_the_folder(save_point, record, tmp_path, serve):
    inside = save_point(record, experiment="inside")
    record["model"]["name"] = "secret"
    outside = save_point(record, experiment="outside", repository=tmp_path / "other")
    experiments = tmp_path / "local" / "experiment"
    inside.with_name("ckp-00000000000000aa.0001.json").symlink_to(outside)
    (experiments / "link").symlink_to(outside.parent)
    (experiments / "up").symlink_to("..")
    os.mkfifo(experiments / "inside" / "ckp-00000000000000bb.0001.json")  # reading it would hang
    _, content = ask(serve())
    assert b"1 point from 1 recorded run" in content
    assert b"secret" not in content


def test_a_linked_folder_of_experiments_is_the_folder(save_point, record, tmp_path):
    save_point(record, repository=tmp_path / "large")
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "experiment").symlink_to(tmp_path / "large" / "experiment")
    page = LivePage([tmp_path / "local"], []).refresh()
    assert b"1 point from 1 recorded run" in page.content


def test_a_folder_that_goes_leaves_what_was_there(save_point, record, tmp_path):
    save_point(record)
    page = LivePage([tmp_path / "local"], ["digits"])
    first = page.refresh()
    (tmp_path / "local").rename(tmp_path / "elsewhere")
    second = page.refresh()
    assert b"no such folder" in second.content
    assert b"1 point from 1 recorded run" in second.content
    assert page.refresh() is second
    (tmp_path / "elsewhere").rename(tmp_path / "local")
    assert b"no such folder" not in page.refresh().content
    assert first.version != second.version


def test_only_what_changed_is_read(save_point, record, tmp_path):
    first = save_point(record)
    page = LivePage([tmp_path / "local"], [])
    page.refresh()
    status = first.stat()
    first.write_text(first.read_text().replace('"digits"', '"XXXXXX"'))
    os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))  # as if it had not changed
    save_point(record)
    content = page.refresh().content
    assert b"2 repetitions" in content
    assert b"XXXXXX" not in content
    first.touch()
    assert b"XXXXXX" in page.refresh().content


def test_an_empty_folder_waits_for_points(tmp_path, serve, save_point, record):
    (tmp_path / "local").mkdir()
    server = serve()
    assert b"0 points from 0 recorded runs" in ask(server)[1]
    save_point(record)
    assert b"1 point from 1 recorded run" in ask(server)[1]


def test_patterns_choose_the_experiments(save_point, record, serve, tmp_path):
    save_point(record, experiment="one")
    record["engine"]["batch"] = 77
    save_point(record, experiment="two")
    _, content = ask(serve(tmp_path / "local", "t*"))
    assert b"1 point from 1 recorded run" in content
    assert b"batch 77" in content
