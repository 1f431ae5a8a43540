"""`ck serve loadgen`: the report live, over a folder of experiments that a sweep adds to."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ck_mlperf.analyze.experiments import ExperimentFile, find_files, read_file
from ck_mlperf.analyze.report import build_page, describe_policy, read_sources
from ck_mlperf.analyze.runs import Run
from ck_mlperf.common.errors import UserError, describe_os_error

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

ADDRESS = "127.0.0.1"
HOSTS = ("127.0.0.1", "localhost")
"""What a Host header may say. Under a name of its own, a page from elsewhere could read ours."""
MOST_SHUTDOWN_S = 2


def serve(report: LiveReport, port: int) -> None:
    """Serve the report on this machine alone, until Ctrl-C. port: 0 for any that is free."""
    import uvicorn

    report.refresh()
    with _listen(port) as listener:
        config = uvicorn.Config(
            build_app(report),
            lifespan="off",
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=MOST_SHUTDOWN_S,
        )
        port = listener.getsockname()[1]
        print(f"http://{ADDRESS}:{port}/ has the report; Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # once more, when uvicorn has closed all
            uvicorn.Server(config).run(sockets=[listener])


class Page(NamedTuple):
    """The report as it was last made."""

    version: str
    """As an ETag."""
    content: bytes


class _Reading(NamedTuple):
    """What a file was when it was last read, and what was in it."""

    state: tuple[int, int, int]
    runs: list[Run]
    problem: str | None


class LiveReport:
    """The report of a folder of experiments, made anew only where a file has changed."""

    def __init__(self, repositories: Sequence[Path], patterns: Sequence[str]) -> None:
        self._repositories = repositories
        self._patterns = patterns
        self._lock = threading.Lock()
        self._readings: dict[ExperimentFile, _Reading] = {}
        self._problem: str | None = None
        self._page: Page | None = None

    def refresh(self) -> Page:
        """The page of what is in the folder now.

        A file that is no whole record, as while it is being written, leaves what was in it before
        and is named on the page; so it is with a folder that cannot be read. Only the first call
        raises UserError for the folder. Calls from several threads wait for one another.
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

    def _build(self) -> Page:
        now = datetime.now(timezone.utc)
        version = f'"{now.timestamp():.6f}"'
        problems = [reading.problem for reading in self._readings.values()]
        content = build_page(
            [run for reading in self._readings.values() for run in reading.runs],
            now,
            live_version=version,
            notices=[problem for problem in (self._problem, *problems) if problem is not None],
        )
        return Page(version, content)


def build_app(report: LiveReport) -> Starlette:
    """The application: one page at `/`, for GET and HEAD; `If-None-Match` is answered with 304."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    # Not async: Starlette calls it in a thread, for a page takes time to make.
    def show(request: Request) -> Response:
        page = report.refresh()
        headers = {"ETag": page.version}
        if request.headers.get("If-None-Match") == page.version:
            return Response(status_code=304, headers=headers)
        return Response(page.content, media_type="text/html", headers=headers)

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
    """What is in a file; None where it is gone, or is no file."""
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


def _listen(port: int) -> socket.socket:
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
