"""`ck serve loadgen` under clients that hold on to it, and where something fails for a while."""

from __future__ import annotations

import os
import resource
import socket
import time
from types import SimpleNamespace

import psutil
import pytest

from ck_mlperf.analyze import serve as serve_module
from ck_mlperf.analyze.rows import Reading
from ck_mlperf.analyze.serve import ANSWER_S, MOST_CONNECTIONS, LivePage

from ..builders.records import make_json
from ..builders.waiting import TIMEOUT_S, wait_until
from .test_serve import ask, start_serve


def connect(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


@pytest.fixture
def hasty(save_point, record, serve):
    """A server that gives a request 0.3 s to arrive."""
    save_point(record)
    return serve(header_s=0.3)


@pytest.mark.parametrize("start", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_a_request_that_does_not_arrive_is_given_up(hasty, start):
    with connect(hasty) as client:
        client.sendall(start)
        assert client.recv(1) == b""


def test_a_request_that_arrives_slowly_is_given_up(hasty):
    with connect(hasty) as client, pytest.raises(OSError):  # noqa: PT011 (broken or reset)
        drip(client)


def drip(client) -> None:
    """Send the header of a request for several seconds: fewer lines than are refused as many."""
    client.sendall(b"GET / HTTP/1.1\r\n")
    for number in range(90):
        client.sendall(b"X-%d: x\r\n" % number)
        time.sleep(0.05)


def test_an_answer_may_take_longer_than_its_request(save_point, record, serve, monkeypatch):
    save_point(record)
    server = serve(header_s=0.3)
    build = serve_module.build_page

    def build_slowly(*arguments, **named):
        time.sleep(0.6)
        return build(*arguments, **named)

    monkeypatch.setattr(serve_module, "build_page", build_slowly)
    save_point(record)
    assert b"2 repetitions" in ask(server)[1]
    assert ANSWER_S > 1


def test_connections_are_bounded(save_point, record, serve):
    save_point(record)
    server = serve(header_s=TIMEOUT_S)
    clients = [connect(server) for _ in range(MOST_CONNECTIONS + 8)]
    wait_until(lambda: count_taken(server) >= MOST_CONNECTIONS)
    time.sleep(0.3)  # in which a further one would be taken
    assert count_taken(server) == MOST_CONNECTIONS
    for client in clients:
        client.close()
    assert ask(server)[0].status == 200


def test_idle_connections_make_room(hasty):
    clients = [connect(hasty) for _ in range(MOST_CONNECTIONS + 8)]
    for client in clients:
        assert client.recv(1) == b""
        client.close()
    assert ask(hasty)[0].status == 200


def count_taken(server) -> int:
    """The connections to the server that are open on its side, which is in this process."""
    connections = psutil.Process().net_connections("tcp")
    return sum(1 for one in connections if one.laddr.port == server.port and one.raddr)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", b"400"),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"GET /\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_request_for_the_page_is_refused(idle_server, request_, status, capfd):
    with connect(idle_server) as client:
        client.sendall(request_)
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert b"LoadGen" not in answer
    assert answer.startswith(b"HTTP/1.0 " + status)
    assert b"X-Content-Type-Options: nosniff" in answer
    assert capfd.readouterr() == ("", "")


def test_an_odd_record_leaves_the_page_of_the_others(save_point, record, serve):
    save_point(record)
    path = save_point(make_json(throughput={"samples_per_second": 1e-308}), record)
    _, content = ask(serve())
    assert b"1 point from 2 recorded runs" in content
    said = f"passed over: {path}: not a record of a run: samples_per_second is 1e-308"
    assert said.encode() in content


def test_a_build_that_failed_is_made_again(save_point, record, tmp_path, monkeypatch):
    save_point(record)
    page = LivePage([tmp_path / "local"], [])
    page.refresh()
    save_point(record)
    with monkeypatch.context() as patched:
        patched.setattr(serve_module, "build_page", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            page.refresh()
    assert b"2 repetitions" in page.refresh().content


def test_a_build_that_fails_is_said_once(save_point, record, serve, monkeypatch, capfd):
    save_point(record)
    server = serve()
    save_point(record)
    monkeypatch.setattr(serve_module, "build_page", lambda *_, **__: 1 / 0)
    for _ in range(3):
        with pytest.raises(OSError):  # noqa: PT011 (closed without an answer)
            ask(server)
    assert capfd.readouterr().err.count("ZeroDivisionError") == 1


def test_what_could_not_be_read_for_a_while_is_read_again(
    save_point, record, tmp_path, monkeypatch
):
    save_point(record)
    page = LivePage([tmp_path / "local"], [])
    with monkeypatch.context() as patched:
        full = Reading([], ["Too many open files"])
        patched.setattr(serve_module, "read_file", lambda _: full)
        assert b"passed over: Too many open files" in page.refresh().content
    content = page.refresh().content
    assert b"passed over" not in content
    assert b"1 point from 1 recorded run" in content


@pytest.mark.slow
def test_without_descriptors_it_says_so_once_and_recovers(save_point, record, tmp_path):
    save_point(record)
    process = start_serve(tmp_path / "local")
    try:
        port = int(process.stdout.readline().split("/")[2].split(":")[1])
        server = SimpleNamespace(port=port)
        used = len(os.listdir(f"/proc/{process.pid}/fd"))
        limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + 2, limits[1]))
        clients = [connect(server) for _ in range(8)]
        assert "no connection can be taken: Too many open files" in process.stderr.readline()
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
        for client in clients:
            client.close()
        assert b"1 point from 1 recorded run" in ask(server)[1]
        process.terminate()
        assert process.communicate()[1] == ""
    finally:
        process.kill()
        process.wait()
