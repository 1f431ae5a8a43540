"""`ck serve loadgen`: the page, kept up to date while a sweep adds to the experiments."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple

from ck_mlperf.analyze.page import build_page, describe_policy, read_sources
from ck_mlperf.analyze.rows import Reading, read_file
from ck_mlperf.common.errors import UserError, describe_os_error
from ck_mlperf.common.printable import make_printable
from ck_mlperf.results.experiments import ExperimentFile, find_files

ADDRESS = "127.0.0.1"
MOST_CONNECTIONS = 32
"""At a time; further ones wait in the system's queue, and take no descriptor."""
HEADER_S = 10.0
"""In which a request has to arrive, all of it."""
ANSWER_S = 30.0
"""In which an answer has to be taken."""

# With any name allowed, a page from elsewhere could read ours.
_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?")
_ACCEPT_AGAIN_S = 0.5


def serve(page: LivePage, port: int) -> None:
    """Serve the page on this machine alone, until Ctrl-C. port: 0 for any that is free."""
    page.refresh()
    with PageServer(page, port) as server:
        print(f"http://{ADDRESS}:{server.port}/ has the page; Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


class PageVersion(NamedTuple):
    """The page as it was last made."""

    version: str
    """As an ETag."""
    content: bytes


class _Read(NamedTuple):
    """A file when it was last read: its state, and what it held."""

    state: tuple[int, int, int] | None
    reading: Reading


class LivePage:
    """The page of some experiments, rebuilt only if a file has changed."""

    def __init__(self, repositories: Sequence[Path], patterns: Sequence[str]) -> None:
        self._repositories = repositories
        self._patterns = patterns
        self._lock = threading.Lock()
        self._files: dict[ExperimentFile, _Read] = {}
        self._problem: str | None = None
        self._page: PageVersion | None = None

    def refresh(self) -> PageVersion:
        """The page of what the experiments have now.

        A file that is not a complete record, as while it is being written, counts with its earlier
        content and is named on the page; so does a folder that cannot be read. Only the first call
        raises UserError for the folder. Calls from several threads wait for each other.
        """
        with self._lock:
            files, problem = self._files, None
            try:
                files = self._read_files()
            except (OSError, UserError) as error:
                problem = describe_os_error(error) if isinstance(error, OSError) else str(error)
                if self._page is None:
                    raise UserError(problem) from error
            if self._page is None or (files, problem) != (self._files, self._problem):
                self._page = _build(files, problem)
                self._files, self._problem = files, problem  # now: what failed is built again
            return self._page

    def _read_files(self) -> dict[ExperimentFile, _Read]:
        roots = [os.path.realpath(repository / "experiment") for repository in self._repositories]
        files = {}
        for file in find_files(self._repositories, self._patterns):
            if not any(_is_below(file.path, root) for root in roots):
                continue  # a link that leads elsewhere
            read = _read(file, self._files.get(file))
            if read is not None:
                files[file] = read
        return files


def _build(files: Mapping[ExperimentFile, _Read], problem: str | None) -> PageVersion:
    now = datetime.now(timezone.utc)
    version = f'"{now.timestamp():.6f}"'
    readings = [read.reading for read in files.values()]
    passed_over = [f"passed over: {text}" for reading in readings for text in reading.passed_over]
    content = build_page(
        [run for reading in readings for run in reading.runs],
        now,
        live_version=version,
        notices=[*([] if problem is None else [problem]), *passed_over],
    )
    return PageVersion(version, content)


def _read(file: ExperimentFile, before: _Read | None) -> _Read | None:
    """The content of a file; None if it is gone."""
    state = None
    try:
        status = file.path.stat()
        state = status.st_ino, status.st_mtime_ns, status.st_size
    except FileNotFoundError:
        return None
    except OSError:
        pass  # read_file says what it is
    # What could not be read is read again: for want of memory or descriptors, it need not change.
    if before is not None and before.state == state and not before.reading.passed_over:
        return before
    reading = read_file(file)
    if before is not None and not reading.runs and reading.passed_over:
        reading = reading._replace(runs=before.reading.runs)
    return _Read(state, reading)


def _is_below(path: Path, root: str) -> bool:
    return os.path.realpath(path).startswith(root + os.sep)


class PageServer(socketserver.ThreadingTCPServer):
    """The page at `/` of one address of this machine, a thread for each connection.

    A connection carries one request. port: 0 for any that is free. header_s: in which a request
    has to arrive. Raises UserError if the port cannot be used.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, page: LivePage, port: int, header_s: float = HEADER_S) -> None:
        self.page = page
        self.header_s = header_s
        self._free = threading.Semaphore(MOST_CONNECTIONS)
        self._said = ""
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise UserError(
                f"--port={port} cannot be used ({error.strerror}): give another, or 0 for any "
                "that is free"
            ) from error
        self.port: int = self.server_address[1]

    def get_request(self) -> tuple[socket.socket, Any]:
        """A connection. Where the system has no descriptor left, the listener stays ready."""
        self._free.acquire()
        try:
            return super().get_request()
        except OSError as error:
            self._free.release()
            self._say_once(f"no connection can be taken: {describe_os_error(error)}")
            time.sleep(_ACCEPT_AGAIN_S)
            raise

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, whatever became of it."""
        try:
            super().shutdown_request(request)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong in an answer; a browser that went away is nothing."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            self._say_once(traceback.format_exc())

    def _say_once(self, text: str) -> None:
        """A browser asks every 2 s: what goes on is said once."""
        if text != self._said:
            self._said = text
            print(make_printable(text, keep="\n\t"), file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    default_request_version = "HTTP/1.0"  # what is no request is answered with a header, too

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Deadline(self.connection, self.server.header_s))

    def do_GET(self) -> None:
        """The page at `/`; `If-None-Match` is answered with 304."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            self._answer(HTTPStatus.BAD_REQUEST, b"Invalid host header")
        elif self.path.partition("?")[0] != "/":
            self._answer(HTTPStatus.NOT_FOUND, b"Not Found")
        else:
            now = self.server.page.refresh()
            etag = ("ETag", now.version)
            if self.headers.get("If-None-Match") == now.version:
                self._answer(HTTPStatus.NOT_MODIFIED, b"", etag)
            else:
                html = ("Content-Type", "text/html; charset=utf-8")
                self._answer(HTTPStatus.OK, now.content, etag, html)

    do_HEAD = do_GET  # noqa: N815 (the base class looks it up)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request for `/`, of which the base class knows no more."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code = HTTPStatus.METHOD_NOT_ALLOWED
        self._answer(HTTPStatus(code), HTTPStatus(code).phrase.encode(), ("Allow", "GET, HEAD"))

    def log_message(self, format: str, *args: Any) -> None:
        """Not a word of each request."""

    def _answer(self, status: HTTPStatus, content: bytes, *headers: tuple[str, str]) -> None:
        self.connection.settimeout(ANSWER_S)
        self.send_response_only(status)
        for name, value in (*_HEADERS.items(), *headers):
            self.send_header(name, value)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


_HEADERS = {
    "Content-Security-Policy": (
        f"{describe_policy(*read_sources(), is_live=True)}; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer, refusals among them."""


class _Deadline(io.RawIOBase):
    """What a connection sends within so many seconds, however slowly. Raises TimeoutError."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._end = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)
