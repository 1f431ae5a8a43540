"""`ck-mlperf doctor` and `ck-mlperf why`, up to what asks CK or needs a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from ck_mlperf.commands import parse
from ck_mlperf.commands.doctor import make_steps
from ck_mlperf.common.errors import UserError


@pytest.mark.parametrize(
    ("tags", "module"),
    [
        ([], None),
        (["--tags=tensorrt-rtx"], "tensorrt_rtx"),
        (["--tags=tensorrt-8"], "tensorrt"),
        (["--tags=tensorrt"], "tensorrt"),
        (["--tags=model,tensorrt,tensorrt-10"], "tensorrt"),
        (["--tags=model,tensorrt"], None),
        (["--tags=tensorrt-8", "--tags=tensorrt-rtx"], "tensorrt_rtx"),  # CK's choice comes last
    ],
)
def test_the_tensorrt_that_is_checked(tags, module):
    assert make_steps(parse(["doctor", "--gpu", *tags])).flavour == module


def test_what_a_check_is_told(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("CK_TOOLS", str(tmp_path))
    steps = make_steps(parse(["doctor", "--gpu", "--device=1", "--calibration=images"]))
    assert steps.model == repository / "package" / "model-onnx-digits" / "digits.onnx"
    assert (steps.device, steps.calibration) == (1, Path("images"))
    assert steps.timings == tmp_path / "ck-doctor-loadgen"


def test_the_doctor_wants_to_be_told_what_to_look_at(refused):
    assert "the following arguments are required: --gpu" in refused("doctor")
    assert "--device: invalid int value: 'x'" in refused("doctor", "--gpu", "--device=x")


@pytest.mark.parametrize("words", [[], ["--tags="], ["--tags=model,onnx,digits"]])
def test_why_wants_the_tags_of_a_plan(command, words):
    with pytest.raises(UserError, match="want the tags of a plan, such as --tags=model,tensorrt,"):
        command("why", *words)
