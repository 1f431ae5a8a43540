"""A real LoadGen test of 500 images of noise, for what comes after a test."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ck_mlperf.loadgen.one_test import DeviceCounts, RunOutcome
from ck_mlperf.loadgen.resolve import resolve_settings
from ck_mlperf.loadgen.settings import read_settings
from ck_mlperf.machine.environment import describe_environment
from ck_mlperf.models.recipe import load_model_recipe
from ck_mlperf.results.accuracy import measure_accuracy
from ck_mlperf.results.build import build_record, describe_dataset, describe_model
from ck_mlperf.results.logs import read_answers, read_result
from ck_mlperf.results.record import Engine, Record

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODEL = ROOT / "package" / "model-onnx-digits" / "digits.onnx"
DEPS = [{"key": "weights", "tags": ["model", "onnx"], "version": "1", "uoa": "0123456789abcdef"}]
START = datetime(2026, 3, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))


@dataclasses.dataclass(frozen=True)
class RealRun:
    """A finished test over 500 images of noise, 28 x 28."""

    outcome: RunOutcome
    engine: Engine


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
            engine = msgspec.convert(printed["engine"], Engine)
            made[key] = RealRun(outcome, engine)
        return made[key]

    return run


def build_real_record(run: RealRun) -> Record:
    """The record of a test that `real_run` made."""
    recipe = load_model_recipe(MODEL)
    result = read_result(run.outcome.log_dir)
    accuracy = None
    if result.mode in ("AccuracyOnly", "SubmissionRun"):
        answers = read_answers(run.outcome.log_dir)
        labels = np.arange(500, dtype=np.int32) % 10
        repeats = result.scenario == "MultiStream"
        accuracy = measure_accuracy(answers, labels, run.outcome.top5, repeats)
    manifest = {
        "format": 1,
        "dataset": "digits",
        "count": 500,
        "recipe": recipe.image.to_dict(),
        "images_sha256": "1" * 64,
        "labels_sha256": "2" * 64,
        "source_list_sha256": "3" * 64,
        "opencv": "4.10.0",
    }
    return build_record(
        program="image-classification",
        outcome=run.outcome,
        result=result,
        accuracy=accuracy,
        engine=run.engine,
        model=describe_model(recipe, "0" * 64, "fp32"),
        dataset=describe_dataset(manifest, 500),
        environment=describe_environment(ROOT),
        deps=DEPS,
        start=START,
        passed={},
    )
