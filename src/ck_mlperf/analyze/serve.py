"""`ck serve loadgen`: the page, kept up to date while a sweep adds to the experiments."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ck_mlperf.analyze.page import build_page, describe_policy, read_sources
from ck_mlperf.analyze.rows import read_file
from ck_mlperf.analyze.runs import Run
from ck_mlperf.common.errors import UserError, describe_os_error
from ck_mlperf.results.experiments import ExperimentFile, find_files

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

ADDRESS = "127.0.0.1"
HOSTS = ("127.0.0.1", "localhost")
"""The allowed Host headers. With any name allowed, a page from elsewhere could read ours."""
MOST_SHUTDOWN_S = 2


def serve(page: LivePage, port: int) -> None:
    """Serve the page on this machine alone, until Ctrl-C. port: 0 for any that is free."""
    page.refresh()
    with listen(port) as listener:
        port = listener.getsockname()[1]
        print(f"http://{ADDRESS}:{port}/ has the page; Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # once more, when uvicorn has closed all
            make_server(page).run(sockets=[listener])


def make_server(page: LivePage) -> uvicorn.Server:
    """A server of the page; `run` takes the sockets on which it listens."""
    import uvicorn

    config = uvicorn.Config(
        build_app(page),
        lifespan="off",
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=MOST_SHUTDOWN_S,
    )
    return uvicorn.Server(config)


class PageVersion(NamedTuple):
    """The page as it was last made."""

    version: str
    """As an ETag."""
    content: bytes


class _Reading(NamedTuple):
    """A file when it was last read: its state and its content."""

    state: tuple[int, int, int]
    runs: list[Run]
    problem: str | None


class LivePage:
    """The page of some experiments, rebuilt only if a file has changed."""

    def __init__(self, repositories: Sequence[Path], patterns: Sequence[str]) -> None:
        self._repositories = repositories
        self._patterns = patterns
        self._lock = threading.Lock()
        self._readings: dict[ExperimentFile, _Reading] = {}
        self._problem: str | None = None
        self._page: PageVersion | None = None

    def refresh(self) -> PageVersion:
        """The page of what the experiments have now.

        A file that is not a complete record, as while it is being written, counts with its earlier
        content and is named on the page; so does a folder that cannot be read. Only the first call
        raises UserError for the folder. Calls from several threads wait for each other.
        """
        with self._lock:
            readings, problem = self._readings, None
            try:
                readings = self._read_files()
            except (OSError, UserError) as error:
                problem = describe_os_error(error) if isinstance(error, OSError) else str(error)
                if self._page is None:
                    raise UserError(problem) from error
            if self._page is None or (readings, problem) != (self._readings, self._problem):
                self._readings, self._problem = readings, problem
                self._page = self._build()
            return self._page

    def _read_files(self) -> dict[ExperimentFile, _Reading]:
        roots = [os.path.realpath(repository / "experiment") for repository in self._repositories]
        readings = {}
        for file in find_files(self._repositories, self._patterns):
            if not any(_is_below(file.path, root) for root in roots):
                continue  # a link that leads elsewhere
            reading = _read(file, self._readings.get(file))
            if reading is not None:
                readings[file] = reading
        return readings

    def _build(self) -> PageVersion:
        now = datetime.now(timezone.utc)
        version = f'"{now.timestamp():.6f}"'
        problems = [reading.problem for reading in self._readings.values()]
        content = build_page(
            [run for reading in self._readings.values() for run in reading.runs],
            now,
            live_version=version,
            notices=[problem for problem in (self._problem, *problems) if problem is not None],
        )
        return PageVersion(version, content)


def build_app(page: LivePage) -> Starlette:
    """The application: one page at `/`, for GET and HEAD; `If-None-Match` is answered with 304."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    # Not async, so that Starlette calls it in a thread: a page takes time to make.
    def show(request: Request) -> Response:
        now = page.refresh()
        headers = {"ETag": now.version}
        if request.headers.get("If-None-Match") == now.version:
            return Response(status_code=304, headers=headers)
        return Response(now.content, media_type="text/html", headers=headers)

    headers = {
        "Content-Security-Policy": (
            f"{describe_policy(*read_sources(), is_live=True)}; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    return Starlette(
        routes=[Route("/", show, methods=["GET"])],
        middleware=[
            Middleware(_AddHeaders, headers=headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False),
        ],
    )


class _AddHeaders:
    """Adds the same headers to every answer, refusals among them."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self._headers]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _read(file: ExperimentFile, before: _Reading | None) -> _Reading | None:
    """The content of a file; None if it is gone, or not a regular file."""
    try:
        status = file.path.stat()
    except FileNotFoundError:
        return None
    state = status.st_ino, status.st_mtime_ns, status.st_size
    if before is not None and before.state == state:
        return before
    if not file.path.is_file():
        return None
    try:
        return _Reading(state, read_file(file), None)
    except UserError as error:
        return _Reading(state, before.runs if before else [], f"passed over: {error}")


def _is_below(path: Path, root: str) -> bool:
    return os.path.realpath(path).startswith(root + os.sep)


def listen(port: int) -> socket.socket:
    """A socket of this machine alone. Raises UserError if the port cannot be used."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise UserError(
            f"--port={port} cannot be used ({error.strerror}): give another, or 0 for any that "
            "is free"
        ) from error
    return listener
