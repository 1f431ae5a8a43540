"""What the tests of the tensorrt room share besides builders/plans.py."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ck_mlperf.tensorrt.api import find_version
from ck_mlperf.tensorrt.build import build_plan
from ck_mlperf.tensorrt.request import BuildRequest

from ..builders.plans import (
    build_fake,
    fake_tensorrt,
    make_model,
    make_request,
    no_gpu,
    set_gpus,
)

__all__ = [
    "build_fake",
    "fake_tensorrt",
    "make_model",
    "make_request",
    "no_gpu",
    "set_gpus",
]


def build(request: BuildRequest) -> str:
    """Build a plan; what the user is told."""
    lines: list[str] = []
    build_plan(request, lines.append)
    return "\n".join(lines)


def list_files(request: BuildRequest) -> list[str]:
    """What is in the plan's folder, without what builds leave for later ones."""
    names = (path.name for path in request.output.parent.iterdir())
    return sorted(name for name in names if name != "plan-build-times.json")


@pytest.fixture(scope="session")
def rtx() -> str:
    """TensorRT for RTX, really installed: it builds without a GPU. Its version."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("NOT RUN: needs TensorRT for RTX: pip install tensorrt-rtx-cu13")
    return str(find_version("tensorrt_rtx"))


@pytest.fixture(scope="session")
def digits(repository: Path) -> Path:
    return repository / "package" / "model-onnx-digits" / "digits.onnx"


@pytest.fixture
def start_build(library_environment) -> Callable[..., subprocess.Popen[str]]:
    """start_build(request, ENV=...): `python -m ck_mlperf.tensorrt.build` with a pipe each for its
    output and its messages. Killed at the end of the test if it still runs."""
    processes = []

    def start(
        request: BuildRequest,
        *more: str,
        path: Path | None = None,
        **environment: str,
    ) -> subprocess.Popen[str]:
        options = {
            "--model": request.model,
            "--output": request.output,
            "--precision": request.precision,
            "--max-batch": request.max_batch,
            "--flavour": request.flavour,
        }
        command = [sys.executable, "-m", "ck_mlperf.tensorrt.build"]
        command += [str(word) for pair in options.items() for word in pair]
        command += more
        folders = [library_environment["PYTHONPATH"], *([str(path)] if path else [])]
        process = subprocess.Popen(
            command,
            env=library_environment
            | {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH")}
            | {"PYTHONPATH": os.pathsep.join(folders[::-1])}
            | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background job ignores Ctrl-C, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
