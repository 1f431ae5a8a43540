"""Versions of libraries, as they say them."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

import ck_mlperf.tensorrt.libraries as module
from ck_mlperf.tensorrt.libraries import list_libraries

ANSWERS = {
    "getInferLibVersion": 8601,
    "cudnnGetVersion": 8904,
    "cublasLtGetVersion": 120103,
    "cudaRuntimeGetVersion": 12080,
    "nvrtcVersion": (12, 1),
}
MAPS = """
7f0 r-xp 0 08:01 5    /opt/somebody/libnvinfer.so.8
7f1 r--p 0 08:01 5    /opt/somebody/libnvinfer.so.8
7f2 r-xp 0 08:01 5    /opt/libnvinfer_builder_resource.so.8.6.1
7f3 r-xp 0 08:01 5    /opt/libcudnn.so.8
7f4 r-xp 0 08:01 5    /opt/libcublasLt.so.12
7f5 r-xp 0 08:01 5    /opt/libcudart.so.12
7f6 r-xp 0 08:01 5    /opt/libnvrtc.so.12
7f7 r-xp 0 08:01 5    /usr/lib/libcuda.so.580.65.06
7f8 r-xp 0 08:01 5    /usr/lib/libc.so.6
7f9 rw-p 0 00:00 0    [heap]
"""


class Library:
    def __getattr__(self, name):
        def call(*arguments):
            answer = ANSWERS[name]
            numbers = answer if isinstance(answer, tuple) else (answer,)
            for argument, number in zip(arguments, numbers, strict=bool(arguments)):
                argument._obj.value = number
            return 0 if arguments else answer

        if name not in ANSWERS:  # as of libcuda.so here
            raise AttributeError(name)
        return call


def test_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    maps = tmp_path / "maps"
    maps.write_text(MAPS)
    monkeypatch.setattr(module, "_MAPS", maps)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: Library())
    assert list_libraries() == [
        "libcublasLt.so.12 (12.1.3)",
        "libcuda.so.580.65.06",
        "libcudart.so.12 (12.8)",
        "libcudnn.so.8 (8.9.4)",
        "libnvinfer.so.8 (8.6.1)",
        "libnvinfer_builder_resource.so.8.6.1",
        "libnvrtc.so.12 (12.1)",
    ]


def test_version_of_tensorrt_since_10(monkeypatch):
    monkeypatch.setitem(ANSWERS, "getInferLibVersion", 101501)
    assert module._read_tensorrt(Library(), "getInferLibVersion") == "10.15.1"


def test_no_maps(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_MAPS", tmp_path / "none")
    assert list_libraries() == []
