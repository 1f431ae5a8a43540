"""How `ck` ends, once it has called a hook."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ck_mlperf

FULL = "CK cannot write below CK_REPOS or CK_TOOLS: No space left on device"
SCRIPT = Path(__file__).with_name("end_in_ck.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(ck_mlperf.__file__).parents[1])}


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("interrupt", 130, ["error: interrupted"]),
        ("disk", 2, [f"error: {FULL}"]),
        ("defect", 1, ["ValueError: a defect"]),
    ],
)
def test_what_is_no_bug_of_cks_own_code_is_one_line(how: str, status: int, said: list[str]) -> None:
    process = subprocess.run(
        [sys.executable, SCRIPT, how], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert process.returncode == status
    assert process.stdout == "before\n"
    lines = process.stderr.splitlines()
    assert lines[-1:] == said
    assert (len(lines) == 1) is (how != "defect")


def test_a_closed_pipe_in_cks_own_code_is_silent() -> None:
    with subprocess.Popen(
        [sys.executable, SCRIPT, "pipe"],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "before\n"
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
