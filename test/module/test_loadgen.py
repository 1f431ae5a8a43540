"""`ck why loadgen`, `ck doctor loadgen`, and what all verbs share, as a user types them."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

WITH_RTX = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="NOT RUN: needs TensorRT for RTX (pip install tensorrt-rtx-cu13)",
)


def test_help_is_the_verb_s(ck):
    """CK itself would print the source of the module."""
    for option in ("--help", "-h"):
        printed = ck("explore", "loadgen", option).stdout
        assert printed.startswith("usage: ck explore loadgen [--OPTION=VALUE ...]\n")
        assert "  --batch=N,... " in printed
        assert "\n  ck explore loadgen --find=max --scenario=Server --duration=10\n" in printed


def test_a_misspelt_verb(ck):
    failed = ck("explor", "loadgen", code=2)
    assert failed.stderr == (
        "usage: ck VERB loadgen [--OPTION=VALUE ...]\n"
        "ck: error: no such verb: explor; did you mean explore?\n"
    )
    assert failed.stdout == ""
    # The kernel's own actions are CK's.
    assert "explore - " in ck("help", "loadgen").stdout
    assert ck("ls", "loadgen").stdout == ""


def why(ck, tags: str, code: int):
    return ck("why", "loadgen", f"--tags={tags}", code=code)


@WITH_RTX
def test_why_names_what_is_missing_of_the_chain(own_ck):
    said = why(own_ck, "model,tensorrt,digits,converted-from-onnx,fp16,maxbatch.3", 2).stdout
    assert "no plan is registered" in said
    assert "package:model-onnx-digits would install it" in said
    assert not own_ck.tools.joinpath("model-onnx-digits").exists()  # it only says so
    own_ck("install", "package:model-onnx-digits", "--quiet")
    said = why(own_ck, "model,tensorrt,digits,converted-from-onnx,fp16,maxbatch.3", 2).stdout
    assert "digits.onnx" in said
    assert "package:model-onnx-convert would do that" in said
    command = "ck install package --tags="
    assert command in said


@WITH_RTX
def test_why_where_no_plan_can_exist(ck):
    said = why(ck, "model,tensorrt,vgg,converted-from-onnx", 2).stderr
    assert "vgg" in said
    assert "ck detect soft:model.onnx --full_path=FILE" in said


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("model,onnx,digits", "want the tags of a plan"),
        ("model,tensorrt,digits,fp16,int8", "want one precision"),
        ("model,tensorrt,digits,maxbatch.4,maxbatch.8", "want one of these tags"),
        ("model,tensorrt,digits,maxbatch.0", "maxbatch.32"),
        ("model,tensorrt,digits,tensorrt-8,tensorrt-rtx", "want one of these tags"),
    ],
)
def test_why_refuses_tags_that_make_no_sense(ck, tags, said):
    failed = why(ck, tags, 2)
    assert said in failed.stderr
    assert failed.stderr.count("error:") == 1


def test_doctor_wants_to_be_told_what_to_look_at(ck):
    assert "--gpu" in ck("doctor", "loadgen", code=2).stderr


@pytest.mark.slow
@WITH_RTX
def test_doctor_runs_with_the_libraries_and_passes_its_exit_code_on(own_ck):
    module = own_ck.root / "src/ck_mlperf/loadgen/checkup.py"
    module.write_text(
        "import json, sys\n"
        "import ck_mlperf, onnx, onnxruntime, tensorrt_rtx\n"
        "def examine(steps):\n"
        "    print(json.dumps({name: str(value) for name, value in vars(steps).items()}))\n"
        "    sys.exit(7)\n"
    )
    steps = json.loads(own_ck("doctor", "loadgen", "--gpu", "--device=1", code=7).stdout)
    del steps["builder"]
    calibration = Path(steps.pop("calibration"))
    assert steps == {
        "model": str(own_ck.root / "package" / "model-onnx-digits" / "digits.onnx"),
        "flavour": "tensorrt_rtx",
        "device": "1",
        "timings": str(own_ck.tools / "ck-doctor-loadgen"),
    }
    assert json.loads((calibration / "manifest.json").read_text())["count"] == 500
    # Without such images it goes on, and int8 is not checked.
    own_ck("rm", "env:*", "--tags=dataset,digits", "--force")
    package = own_ck.root / "package" / "dataset-digits" / "make_digits.py"
    package.write_text("raise SystemExit('no images')")
    done = own_ck("doctor", "loadgen", "--gpu", code=7)
    assert json.loads(done.stdout)["calibration"] == "None"
    assert "no images" in done.stderr


@pytest.mark.slow
@WITH_RTX
@pytest.mark.skipif(
    shutil.which("nvidia-smi") is not None, reason="NOT RUN: is about machines without a GPU"
)
def test_doctor_on_a_machine_without_a_gpu(ck):
    """It converts and builds all the same, and the report says what is missing."""
    printed = ck("doctor", "loadgen", "--gpu", code=1).stdout
    for precision in ("fp32", "fp16", "int8"):
        assert f"| build the plan, {precision} | ok | " in printed
        assert f"| run the plan, {precision} | not done | needs a GPU |" in printed
    assert "FAILED: GPU and driver. " in printed
    assert "libtensorrt_rtx.so" in printed
    assert printed.count("libcuda.so.1") == 1  # that the driver is missing is said once
