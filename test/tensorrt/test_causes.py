"""What the user is told to do, from what TensorRT said: by its messages, and in a failed build."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ck_mlperf.tensorrt.causes as module
from ck_mlperf.common.errors import UserError
from ck_mlperf.tensorrt.api import make_flavour
from ck_mlperf.tensorrt.build import build_plan
from ck_mlperf.tensorrt.causes import advise

LIBRARY = "libnvinfer_builder_resource_sm90.so.10.15.1"
UNABLE = f"Unable to load library: {LIBRARY}"
NO_KERNEL = "Error Code 10: Internal Error (Could not find any implementation for node {}.)"
SKIPPED = (
    "Tactic Device request: 4096MB Available: 2048MB. Device memory is insufficient to use tactic."
)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """install('tensorrt-libs'): as pip does. Nothing is installed to begin with."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    def install_it(name: str) -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")

    return install_it


def ask(
    *errors: str,
    warnings: tuple[str, ...] = (),
    name: str = "tensorrt",
    version: str = "10.15.1",
    building: bool = True,
) -> str:
    return advise(errors, warnings, make_flavour(name, version), building)


def test_a_missing_library_is_named_with_what_carries_it(install):
    said = ask(UNABLE)
    assert LIBRARY in said
    assert "compute capability 9.0" in said
    assert "LD_LIBRARY_PATH" in said
    assert "tensorrt-cu13-libs or tensorrt-cu12-libs" in said
    install("tensorrt")  # of a Debian package
    assert ask(UNABLE) == said
    install("tensorrt-cu12")
    assert ask(UNABLE) == said
    install("tensorrt-cu12-bindings")
    said = ask(UNABLE)
    assert "tensorrt-cu12-libs==10.15.1, which is not installed: pip install tensorrt-cu12" in said
    assert "LD_LIBRARY_PATH" not in said
    install("tensorrt-cu12-libs")
    assert "pip install --force-reinstall --no-deps tensorrt-cu12-libs==10.15.1" in ask(UNABLE)


def test_a_missing_library_of_8(install):
    install("tensorrt-bindings")
    message = "libnvinfer.so.8: cannot open shared object file: No such file or directory"
    assert "tensorrt-libs==8.6.1, which is not installed" in ask(message, version="8.6.1")


def test_the_folder_of_the_other_libraries_is_named(monkeypatch, tmp_path, install):
    maps = tmp_path / "maps"
    maps.write_text("7f00-7f01 r-xp 0 08:01 5  /opt/TensorRT/lib/libnvinfer.so.10.15.1\n")
    monkeypatch.setattr(module, "_MAPS", maps)
    assert "the others were loaded from /opt/TensorRT/lib, which lacks it" in ask(UNABLE)
    assert "the others were loaded from" not in ask(UNABLE, name="tensorrt_rtx", version="1.7.1")


def test_turing_is_an_advice_of_tensorrt_for_rtx_only():
    message = "FP32 GEMM is not available for Turing"
    assert "convert the model to fp16" in ask(message, name="tensorrt_rtx", version="1.7.1")
    assert ask(message) == ""


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("libcuda.so.1: cannot open shared object file: No such file", "part of the NVIDIA driver"),
        ("Could not find: libnvinfer.so.10. Is it on your LD_LIBRARY_PATH?", "TensorRT's own"),
        (
            "Could not load library libcudnn_cnn_infer.so.8. Error: libnvrtc.so.12: cannot open "
            "shared object file: No such file or directory",
            "nvidia-cuda-nvrtc-cu12",
        ),
        ("libcublas.so.13: cannot open shared object file", "pip install nvidia-cublas, or"),
        ("CUDA initialization failure with error: 35. Please check", "no NVIDIA driver"),
        (
            "Cuda Runtime (CUDA driver version is insufficient for CUDA runtime version)",
            "no NVIDIA driver",
        ),
        ("CUDA initialization failure with error: 100", "CUDA_VISIBLE_DEVICES is"),
        ("CUDA initialization failure with error: 802", "fabricmanager"),
        ("CUDA initialization failure with error: 803", "different versions"),
        ("CUDA initialization failure with error: 46", "compute mode"),
        ("CUDA initialization failure with error: 2", "not enough memory"),
        ("[allocate::31] Error Code 1: Cuda Runtime (out of memory)", "a smaller maxbatch"),
        ("Error Code 2: OutOfMemory (Requested amount of GPU memory", "TENSORRT_WORKSPACE_MIB"),
        (
            "Internal Error (Target GPU SM 61 is not supported by this TensorRT release.)",
            "which: pip",
        ),
        ("Error Code 1: Internal Error (Unsupported SM: 0x90a)", "made for this GPU. What"),
        ("generated on an incompatible device, expecting compute 9.0 got", "build it again here"),
        (NO_KERNEL.format("layer4.2.conv1 + relu"), "no kernel for node layer4.2.conv1 + relu "),
        (NO_KERNEL.format("{ForeignNode[a.b...c]}"), "no kernel for node {ForeignNode[a.b...c]} "),
        (
            "(Could not find any implementation for node a.b due to insufficient workspace. See)",
            "No kernel for node a.b fits the workspace",
        ),
    ],
)
def test_every_cause_has_its_advice(message, advice):
    assert advice in ask(message)


@pytest.mark.parametrize(
    "message",
    ["Assertion x >= 0 failed", "failed to load config.json", ""],
)
def test_no_advice_where_the_cause_is_not_known(message):
    assert ask(message) == ""


def test_a_kernel_that_is_missing_for_want_of_memory():
    assert "not enough memory" in ask(NO_KERNEL.format("conv1"), warnings=(SKIPPED,))
    assert ask("Assertion failed", warnings=(SKIPPED,)) == ""  # tactics are skipped all the time


def test_not_enough_memory_to_run():
    said = ask("Cuda Runtime (out of memory)", building=False)
    assert "maxbatch" in said
    assert "WORKSPACE" not in said


def test_a_failed_build_names_the_library(
    fake_tensorrt, set_gpus, make_request, monkeypatch, tmp_path: Path
):
    fake_tensorrt("10.15.1")
    set_gpus(("NVIDIA H100 80GB HBM3", "9.0"))
    monkeypatch.setenv("FAKE_BUILD_FAILS", json.dumps([["ERROR", UNABLE]]))
    with pytest.raises(UserError) as raised:
        build_plan(make_request(flavour="tensorrt"), lambda line: None)
    said = str(raised.value)
    assert f"could not build {make_request().model} for fp32:\n  {UNABLE}\n{LIBRARY} is one" in said
    assert "precision, version" not in said
    warned = [["WARNING", SKIPPED], ["ERROR", NO_KERNEL.format("conv1")]]
    monkeypatch.setenv("FAKE_BUILD_FAILS", json.dumps(warned))
    with pytest.raises(UserError, match=r"node conv1\.\)\nThe GPU has not enough memory"):
        build_plan(make_request(flavour="tensorrt"), lambda line: None)
    monkeypatch.setenv("FAKE_BUILD_FAILS", '[["ERROR", "an assertion failed"]]')
    with pytest.raises(UserError, match=r"\n  an assertion failed$"):
        build_plan(make_request(flavour="tensorrt"), lambda line: None)
