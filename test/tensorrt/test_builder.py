"""Builds in another process, with the real TensorRT for RTX."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.tensorrt.builder import Builder


def test_builds_of_one_process(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    digits = repository / "package" / "model-onnx-digits" / "digits.onnx"

    def build(name: str, model: Path = digits) -> None:
        builder.build(
            *("--model", str(model), "--output", str(tmp_path / name), "--precision", "fp32"),
            *("--max-batch", "2", "--flavour", "tensorrt_rtx"),
        )

    with Builder() as builder:
        build("one.plan")
        pid = builder.pid
        assert any(name.startswith("libtensorrt_rtx") for name in builder.libraries)
        with pytest.raises(UserError, match=r"none\.onnx: no such file"):
            build("two.plan", tmp_path / "none.onnx")
        build("two.plan")
        assert builder.pid == pid
        assert (tmp_path / "two.plan").exists()
        # It crashes: that is said, and the next build goes on.
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(UserError, match="the process ended with signal 9"):
            build("three.plan")
        build("three.plan")
