"""Real LoadGen runs, made once for all tests that read logs or records."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ck_mlperf.loadgen.harness import native_build

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODEL = ROOT / "package" / "model-onnx-digits" / "digits.onnx"


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


def start_marked(folder, images, failure, environ):
    names = [name for name in os.environ if not name.startswith("CK_")]
    return subprocess.Popen(
        [sys.executable, str(HERE / "run_marked.py"), str(folder / "logs"), str(images), failure],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={name: os.environ[name] for name in names}
        | {"PYTHONPATH": str(ROOT / "src")}
        | environ,
    )


def finish_marked(process, folder, started):
    try:
        stdout, stderr = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()  # a test that does not end at all would stop the whole suite
        pytest.fail(f"hangs: {process.communicate()}")
    report = json.loads(stdout) if process.returncode == 0 else {}
    elapsed_s = time.monotonic() - started
    return MarkedRun(process.returncode, report, stderr, folder / "logs", elapsed_s)


@pytest.fixture
def run_marked(tmp_path: Path) -> Callable[..., MarkedRun]:
    """run_marked(scenario, mode, images, failure, NAME=value): with the variables CK_NAME=value."""

    def run(scenario, mode, images=300, failure="", **environ):
        environ = {
            "CK_LOADGEN_SCENARIO": scenario,
            "CK_LOADGEN_MODE": mode,
            **{f"CK_{name}": str(value) for name, value in environ.items()},
        }
        started = time.monotonic()
        process = start_marked(tmp_path, images, failure, environ)
        return finish_marked(process, tmp_path, started)

    return run


@pytest.fixture(name="start_marked")
def start_marked_fixture() -> Callable[..., subprocess.Popen[str]]:
    """start_marked(folder, images, failure, environment): without waiting for its end."""
    return start_marked
