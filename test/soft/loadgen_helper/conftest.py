"""Real LoadGen runs, made once for all tests that read logs or records."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from loadgen_helper import native_build
from loadgen_helper.run import DeviceCounts, RunOutcome
from loadgen_helper.settings import read_settings, resolve_settings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
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


@dataclasses.dataclass(frozen=True)
class RealRun:
    """A finished test over 500 images of noise, 28 x 28."""

    outcome: RunOutcome
    engine: dict
    environ: dict[str, str]


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RealRun]:
    """real_run(kind, NAME=value, ...): run LoadGen with the variables CK_LOADGEN_NAME=value."""
    made: dict[str, RealRun] = {}

    def run(kind: str = "null", **variables: object) -> RealRun:
        key = f"{kind} {sorted(variables.items())}"
        if key not in made:
            folder = tmp_path_factory.mktemp("logs")
            environ = {f"CK_LOADGEN_{name}": str(value) for name, value in variables.items()}
            paths = [str(p) for p in (ROOT / "soft").glob("lib.python.*-helper")]
            process = subprocess.run(
                [sys.executable, HERE / "run_recorded.py", folder, kind, MODEL],
                env=os.environ | environ | {"PYTHONPATH": os.pathsep.join(paths)},
                capture_output=True,
                text=True,
                timeout=100,
            )
            assert process.returncode == 0, process.stderr
            printed = json.loads(process.stdout)
            top5 = printed["top5"]
            outcome = RunOutcome(
                resolve_settings(read_settings(environ), 500, None),
                printed["loadgen_settings"],
                None if top5 is None else np.array(top5, np.int32),
                folder,
                printed["wall_s"],
                tuple(DeviceCounts(**device) for device in printed["devices"]),
                printed["conditions"],
            )
            made[key] = RealRun(outcome, printed["engine"], environ)
        return made[key]

    return run
