"""A real LoadGen test of 500 images of noise, for what comes after a test."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ck_mlperf.loadgen.one_test import DeviceCounts, RunOutcome
from ck_mlperf.loadgen.resolve import resolve_settings
from ck_mlperf.loadgen.settings import read_settings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODEL = ROOT / "package" / "model-onnx-digits" / "digits.onnx"


@dataclasses.dataclass(frozen=True)
class RealRun:
    """A finished test over 500 images of noise, 28 x 28."""

    outcome: RunOutcome
    engine: dict


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RealRun]:
    """real_run(kind, NAME=value, ...): run LoadGen with the variables CK_LOADGEN_NAME=value."""
    made: dict[str, RealRun] = {}

    def run(kind: str = "null", **variables: object) -> RealRun:
        key = f"{kind} {sorted(variables.items())}"
        if key not in made:
            folder = tmp_path_factory.mktemp("logs")
            environ = {f"CK_LOADGEN_{name}": str(value) for name, value in variables.items()}
            process = subprocess.run(
                [sys.executable, HERE / "run_recorded.py", folder, kind, MODEL],
                env=os.environ | environ | {"PYTHONPATH": str(ROOT / "src")},
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
            made[key] = RealRun(outcome, printed["engine"])
        return made[key]

    return run
