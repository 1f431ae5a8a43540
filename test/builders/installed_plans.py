"""Plans that `ck install package` builds of the digits network."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

BUILDS_PLANS = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None,
        reason="NOT RUN: needs TensorRT for RTX (pip install tensorrt-rtx-cu13)",
    ),
]
DIGITS = "model,tensorrt,digits,converted-from-onnx"
CASES = [("fp32", 4), ("tf32", 2), ("fp16", 32), ("int8", 1)]
# What the first layer computes in, and so what the plan itself takes.
NATIVE = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "int8": "int8"}


def install(ck, tags: str, *flags: str, code: int = 0, timeout: float = 300):
    return ck("install", "package", f"--tags={tags}", "--quiet", *flags, code=code, timeout=timeout)


def find_one(ck, tags: str) -> dict:
    """The meta of the one env entry with these tags."""
    (line,) = ck("search", "env", f"--tags={tags}").stdout.split()
    entry = ck.experiments.parent / "env" / line.rpartition(":")[2]
    return json.loads((entry / ".cm" / "meta.json").read_text())


def read_sidecar(ck, tags: str) -> tuple[Path, dict]:
    """The one plan with these tags, and what lies beside it."""
    plan = Path(find_one(ck, tags)["customize"]["full_path"])
    return plan, json.loads(plan.with_name("model.plan.json").read_text())


def check_plan(
    plan: Path, sidecar: dict, precision: str, batch: int, side: int, samples: str = "uint8"
) -> None:
    """samples: what they are; 'uint8', images of which the GPU makes the plan's input."""
    key = sidecar["key"]
    assert hashlib.sha256(plan.read_bytes()).hexdigest() == sidecar["plan"]["sha256"]
    assert (key["flavour"], key["precision"], key["input"], key["max_batch"]) == (
        "tensorrt_rtx",
        precision,
        samples,
        batch,
    )
    assert sidecar["recipe"]["max_batch"] == batch
    (source,) = sidecar["inputs"]
    (answer,) = sidecar["outputs"]
    assert source["dtype"] == NATIVE[precision]
    assert source["shape"][1:] == [3, side, side]
    described = sidecar["recipe"]["input"]
    assert (described["dtype"], described["layout"]) == (NATIVE[precision], "NCHW")
    assert ("step" in described) == (precision == "int8")
    assert answer["dtype"] == "int32"
    assert len(answer["shape"]) == 1
    assert (key["calibration"] is not None) == (precision == "int8")
    assert key["onnx_sha256"] != key["source_sha256"]


def explain(ck, tags: str, code: int) -> str:
    return ck("why", "loadgen", f"--tags={tags}", code=code).stdout


@pytest.fixture(scope="module")
def plans(ck):
    """The digits network as a plan in every precision; what each installation printed."""
    return {
        (precision, batch): install(ck, f"{DIGITS},{precision},maxbatch.{batch}").stdout
        for precision, batch in CASES
    }
