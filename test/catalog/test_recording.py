"""Recordings of `ck benchmark`; `test/program/` makes them, and kills them."""

from __future__ import annotations

import pytest

from ck_mlperf.catalog.recording import check_recording
from ck_mlperf.common.errors import UserError


def benchmark(*flags: str) -> list[str]:
    return ["/bin/ck", "benchmark", "program:image-classification-tensorrt-loadgen-py", *flags]


@pytest.mark.parametrize(
    "flags",
    [
        ["--record"],
        ["--record", "--record_uoa="],
        ["--record=yes", "--record_uoa=a/b"],
        ["--record", "--record_uoa=sweep,1"],
    ],
)
def test_a_recording_without_a_name_that_ck_takes_is_refused(flags):
    with pytest.raises(UserError, match="--record_uoa=NAME"):
        check_recording(benchmark(*flags))


@pytest.mark.parametrize(
    "arguments",
    [
        benchmark("--record", "--record_uoa=mlperf.closed.resnet-50", "--record_repo=local"),
        benchmark("--record", "--record_uoa=local:experiment:sweep"),
        benchmark("--record_uoa=unused/name"),
        ["/bin/ck", "run", "program:x", "--record"],
        ["script.py"],
    ],
)
def test_other_commands_pass(arguments):
    check_recording(arguments)
