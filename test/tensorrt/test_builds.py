"""Several builds in one process; TensorRT is a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from ck_mlperf.tensorrt.plan_file import read_sidecar

H100 = ("NVIDIA H100 80GB HBM3", "9.0")


def test_builds_share_their_timings_and_answer_each(
    fake_tensorrt, set_gpus, make_model, library_environment, tmp_path
):
    site = fake_tensorrt("8.6.1")
    set_gpus(H100)

    def describe(precision, model=None):
        return [
            *("--model", str(model or make_model(precision)), "--precision", precision),
            *("--output", str(tmp_path / precision / "model.plan"), "--max-batch", "4"),
            *("--timings", str(tmp_path / "kept"), "--flavour", "tensorrt"),
        ]

    def build(*requests):
        path = os.pathsep.join([str(site), library_environment["PYTHONPATH"]])
        process = subprocess.run(
            [sys.executable, "-m", "ck_mlperf.tensorrt.builds"],
            env=library_environment
            | {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH")}
            | {"PYTHONPATH": path},
            input="".join(json.dumps(request) + "\n" for request in requests),
            capture_output=True,
            text=True,
            check=True,
        )
        return [json.loads(line)["error"] for line in process.stdout.splitlines()]

    none = describe("fp16", tmp_path / "none.onnx")
    first, failed, second = build(describe("fp32"), none, describe("int8"))
    assert (first, second) == (None, None)
    assert "none.onnx: no such file" in failed
    for precision in ("fp32", "int8"):
        (cache,) = (tmp_path / "kept").glob("*.cache")
        plan = tmp_path / precision / "model.plan"
        assert read_sidecar(plan).build["timing_cache"] == str(cache)
    # Timings are kept between processes, too.
    assert build(describe("fp16")) == [None]
    calls = json.loads((tmp_path / "fp16" / "model.plan").read_bytes()[4:])
    assert ["timings", ["timing 0", "timing 1"], False] in calls
