"""Which GPUs there are, as stand-ins of nvidia-smi and of the driver's libraries say."""

import subprocess

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.machine.gpus import (
    Gpu,
    NoGpuError,
    describe_gpus,
    find_cuda_version,
    find_gpu_uuid,
    find_gpus,
    list_cuda_devices,
)

from ..fakes.driver import FakeGpu

A100 = Gpu("NVIDIA A100-SXM4-80GB", "8.0")
RTX = Gpu("NVIDIA GeForce RTX 4090", "8.9")
BOTH = [("NVIDIA A100-SXM4-80GB", "8.0"), ("NVIDIA GeForce RTX 4090", "8.9")]
FAKES = [
    FakeGpu(A100.name, (8, 0), uuid=bytes(range(16))),
    FakeGpu(RTX.name, (8, 9)),
    FakeGpu(A100.name, (8, 0), uuid=bytes(16)),
]


@pytest.fixture(autouse=True)
def programs(no_gpu):
    """Where the tests put an nvidia-smi."""
    return no_gpu


def test_no_gpu():
    assert find_gpus() == describe_gpus() == []


def test_no_nvidia_smi(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus() == []


def test_kinds_are_named_once(set_gpus):
    set_gpus(*BOTH, BOTH[0])
    assert find_gpus() == [A100, RTX]
    assert str(RTX) == "NVIDIA GeForce RTX 4090 (compute capability 8.9)"


@pytest.mark.parametrize(
    ("visible", "order", "expected"),
    [
        ("1", "PCI_BUS_ID", [RTX]),
        ("1,0", "PCI_BUS_ID", [A100, RTX]),
        ("1", None, [A100, RTX]),  # CUDA's own order is another one
        ("GPU-1abc", None, [RTX]),
        ("", None, []),
    ],
)
def test_visible_devices(set_gpus, monkeypatch, visible, order, expected):
    set_gpus(*BOTH)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if order:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    assert find_gpus() == expected


def test_driver_that_is_too_old(programs):
    text = 'Field "compute_cap" is not a valid field to query.'
    (programs / "nvidia-smi").write_text(f"#!/bin/sh\necho '{text}'\nexit 2\n")
    with pytest.raises(UserError, match="driver of version 510"):
        find_gpus()


def test_the_drivers_library_is_asked_and_no_process(put_driver, monkeypatch):
    driver = put_driver(*FAKES)
    monkeypatch.setattr(subprocess, "run", None)
    assert find_gpus() == [A100, RTX]
    assert (driver.calls[0], driver.calls[-1]) == ("nvmlInit_v2", "nvmlShutdown")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", FAKES[1].spell_uuid())
    assert find_gpus() == [RTX]


@pytest.mark.parametrize("how", ["failing", "missing"])
@pytest.mark.parametrize("function", ["nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlDeviceGetName"])
def test_a_library_that_does_not_answer(put_driver, set_gpus, how, function):
    driver = put_driver(*FAKES, **{how: [function]})
    set_gpus(BOTH[1])
    assert find_gpus() == [RTX]  # as nvidia-smi says
    assert (driver.calls[-1:] == ["nvmlShutdown"]) == (function != "nvmlInit_v2")


def test_gpus_as_an_environment_has_them(put_driver):
    put_driver(*FAKES)
    first, second, _ = describe_gpus()
    assert first == {
        "name": "NVIDIA A100-SXM4-80GB",
        "driver": "550.54.15",
        "memory_mib": 81559,
        "max_sm_clock_mhz": 1980,
        "max_memory_clock_mhz": 2619,
        "power_limit_w": 700,
    }
    assert second["name"] == RTX.name


def test_figures_that_a_gpu_does_not_tell(put_driver):
    put_driver(
        FAKES[1],
        failing=["nvmlDeviceGetPowerManagementLimit", "nvmlDeviceGetMemoryInfo"],
        missing=["nvmlDeviceGetMaxClockInfo"],
    )
    (gpu,) = describe_gpus()
    assert {name for name, value in gpu.items() if value is not None} == {"name", "driver"}


@pytest.mark.parametrize("function", ["nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlDeviceGetName"])
def test_no_environment_of_gpus_by_a_driver_that_does_not_work(put_driver, function):
    put_driver(*FAKES, failing=[function])
    assert describe_gpus() == []


@pytest.mark.parametrize(
    ("code", "value", "expected"),
    [(0, 12080, (12, 8)), (0, 13000, (13, 0)), (34, 12080, (12, 4)), (0, 0, (12, 4))],
)
def test_cuda_of_the_driver(put_driver, programs, code, value, expected):
    driver = put_driver(failing=["cuDriverGetVersion"] if code else [])
    driver.cuda_version = value
    said = "| NVIDIA-SMI 550.54.15     Driver Version: 550.54.15     CUDA Version: 12.4     |"
    (programs / "nvidia-smi").write_text(f"#!/bin/sh\necho '{said}'\n")
    assert find_cuda_version() == expected


def test_no_cuda_without_a_driver(monkeypatch, tmp_path):
    assert find_cuda_version() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_cuda_version() is None


def test_cuda_devices(put_driver):
    put_driver(*FAKES)
    assert list_cuda_devices() == (0, 1, 2)


def refuse(put_driver, code, *gpus, function="cuInit"):
    """A driver of which a function returns `code`."""
    put_driver(*gpus, failing=[function]).failing[function] = code


@pytest.mark.parametrize("function", [None, "cuInit", "cuDeviceGetCount"])
def test_no_cuda_device(monkeypatch, put_driver, function):
    if function is None:
        put_driver()
    else:
        refuse(put_driver, 100, FakeGpu(), function=function)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(NoGpuError, match=r"finds no GPU .* CUDA_VISIBLE_DEVICES is '-1'"):
        list_cuda_devices()


def test_a_driver_that_does_not_work(put_driver):
    refuse(put_driver, 803, FakeGpu())
    with pytest.raises(NoGpuError, match=r"does not work .*error 803") as raised:
        list_cuda_devices()
    assert "VISIBLE" not in str(raised.value)  # it is not that


def test_no_cuda_driver():
    with pytest.raises(NoGpuError, match=r"no NVIDIA driver is installed: .*libcuda\.so\.1"):
        list_cuda_devices()
    assert find_gpu_uuid(0) is None


def test_uuid_of_a_cuda_device(put_driver):
    put_driver(FAKES[0], FAKES[1])
    assert find_gpu_uuid(1) == "GPU-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf"
    assert find_gpu_uuid(2) is None


@pytest.mark.parametrize("function", ["cuInit", "cuDeviceGetUuid"])
def test_no_uuid(put_driver, function):
    refuse(put_driver, 100, FakeGpu(), function=function)
    assert find_gpu_uuid(0) is None
