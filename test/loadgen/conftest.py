"""LoadGen tests over marked images, and what they leave."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ck_mlperf.loadgen.harness import native_build

RUN_MARKED = Path(__file__).with_name("run_marked.py").resolve()
ROOT = RUN_MARKED.parents[2]
PATIENCE_S = 60


@pytest.fixture(scope="session")
def native_library() -> Path:
    """LoadGen's C++ interface, compiled once and kept in .ck."""
    if shutil.which(native_build.COMPILER) is None:
        pytest.skip(f"NOT RUN: needs {native_build.COMPILER}")
    return native_build.build_once(ROOT / ".ck" / "loadgen-native")


@pytest.fixture
def interface(request: pytest.FixtureRequest) -> dict[str, str]:
    """What run_marked.py needs for LoadGen's interface of the parameter, wheel or native."""
    if request.param == "wheel":
        return {}
    return {"MARKED_LIBRARY": str(request.getfixturevalue("native_library"))}


@dataclasses.dataclass
class MarkedRun:
    """A finished run_marked.py."""

    code: int
    report: dict
    stderr: str
    log_dir: Path
    elapsed_s: float

    def read_accuracy(self):
        """(sample index, label) of every line of LoadGen's accuracy log."""
        lines = json.loads((self.log_dir / "mlperf_log_accuracy.json").read_text())
        return [
            (line["qsl_idx"], int.from_bytes(bytes.fromhex(line["data"]), "little"))
            for line in lines
        ]

    def read_detail(self, key):
        """The value of a key of LoadGen's detail log, the last one."""
        lines = (self.log_dir / "mlperf_log_detail.txt").read_text().splitlines()
        records = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]
        return [record["value"] for record in records if record["key"] == key][-1]


def list_environment(environ: dict[str, str]) -> dict[str, str]:
    names = [name for name in os.environ if not name.startswith("CK_")]
    return {name: os.environ[name] for name in names} | {"PYTHONPATH": str(ROOT / "src")} | environ


class MarkedServer:
    """A run_marked.py that has imported all it needs, and forks for each run."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(RUN_MARKED), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # The server must have one thread when it forks.
            env=list_environment({"OPENBLAS_NUM_THREADS": "1"}),
            start_new_session=True,  # so that a run that hangs can be killed with it
        )

    def run(self, folder: Path, arguments: list[str], environ: dict[str, str]) -> int:
        """The exit code of a run; what it prints is in files of the folder."""
        request = {"folder": str(folder), "arguments": arguments, "environ": environ}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        if not select.select([self.process.stdout], [], [], PATIENCE_S)[0]:
            self.end()
            pytest.fail(
                f"hangs: {(folder / 'stdout').read_text(), (folder / 'stderr').read_text()}"
            )
        return int(self.process.stdout.readline())

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture(scope="session")
def get_marked_server() -> Iterator[Callable[[], MarkedServer]]:
    """The one server, started when it is first asked for and again where a run hung."""
    servers: list[MarkedServer] = []

    def get() -> MarkedServer:
        if not servers or servers[-1].process.poll() is not None:
            servers.append(MarkedServer())
        return servers[-1]

    yield get
    for server in servers:
        server.end()


@pytest.fixture
def run_marked(tmp_path: Path, get_marked_server) -> Callable[..., MarkedRun]:
    """run_marked(scenario, mode, images, failure, NAME=value): with the variables CK_NAME=value."""

    def run(scenario, mode, images=300, failure="", **environ):
        variables = {"LOADGEN_SCENARIO": scenario, "LOADGEN_MODE": mode} | environ
        started = time.monotonic()
        code = get_marked_server().run(
            tmp_path,
            [str(tmp_path / "logs"), str(images), failure],
            {f"CK_{name}": str(value) for name, value in variables.items()},
        )
        elapsed_s = time.monotonic() - started
        printed, said = ((tmp_path / name).read_text() for name in ("stdout", "stderr"))
        report = json.loads(printed) if code == 0 else {}
        return MarkedRun(code, report, said, tmp_path / "logs", elapsed_s)

    return run


@pytest.fixture
def start_marked() -> Callable[..., subprocess.Popen[str]]:
    """start_marked(folder, images, failure, environment): without waiting for its end."""

    def start(folder, images, failure, environ):
        return subprocess.Popen(
            [sys.executable, str(RUN_MARKED), str(folder / "logs"), str(images), failure],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=list_environment(environ),
        )

    return start
