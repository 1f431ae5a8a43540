"""Which GPUs there are, as stand-ins of nvidia-smi and of the driver's libraries say."""

import ctypes

import pytest

import ck_mlperf.machine.gpus as module
from ck_mlperf.common.errors import UserError
from ck_mlperf.machine.gpus import Gpu, find_cuda_version, find_gpus

A100 = Gpu("NVIDIA A100-SXM4-80GB", "8.0")
RTX = Gpu("NVIDIA GeForce RTX 4090", "8.9")
BOTH = [("NVIDIA A100-SXM4-80GB", "8.0"), ("NVIDIA GeForce RTX 4090", "8.9")]


def test_no_gpu():
    assert find_gpus() == []


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


def test_driver_that_is_too_old(no_gpu):
    script = no_gpu / "nvidia-smi"
    text = 'Field "compute_cap" is not a valid field to query.'
    script.write_text(f"#!/bin/sh\necho '{text}'\nexit 2\n")
    with pytest.raises(UserError, match="driver of version 510"):
        find_gpus()


class Nvml:
    """Two kinds of GPUs; `fails`: the call that does not work."""

    def __init__(self, fails=None):
        self.fails, self.calls = fails, []

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            if name == self.fails:
                return 999
            getattr(self, f"do_{name}", lambda *_: None)(*arguments)
            return 0

        if name.startswith("do_"):
            raise AttributeError(name)
        return call

    def do_nvmlDeviceGetCount_v2(self, count):  # noqa: N802
        count._obj.value = 3

    def do_nvmlDeviceGetHandleByIndex_v2(self, index, handle):  # noqa: N802
        handle._obj.value = 100 + index

    def do_nvmlDeviceGetUUID(self, handle, buffer, size):  # noqa: N802
        assert size <= len(buffer)
        buffer.value = f"GPU-{handle.value - 100}abc".encode()

    def do_nvmlDeviceGetName(self, handle, buffer, size):  # noqa: N802
        assert size <= len(buffer)
        buffer.value = BOTH[handle.value % 2][0].encode()

    def do_nvmlDeviceGetCudaComputeCapability(self, handle, major, minor):  # noqa: N802
        numbers = BOTH[handle.value % 2][1].split(".")
        major._obj.value, minor._obj.value = map(int, numbers)


@pytest.fixture
def put_nvml(monkeypatch):
    """put_nvml(fails=...): the driver's library is a stand-in from now on."""

    def put(fails=None):
        nvml = Nvml(fails)
        monkeypatch.setattr(ctypes, "CDLL", lambda name: nvml)
        return nvml

    return put


def test_the_drivers_library_is_asked_and_no_process(put_nvml, monkeypatch):
    nvml = put_nvml()
    monkeypatch.setattr(module.subprocess, "run", None)
    assert find_gpus() == [A100, RTX]
    assert (nvml.calls[0], nvml.calls[-1]) == ("nvmlInit_v2", "nvmlShutdown")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1abc")
    assert find_gpus() == [RTX]


@pytest.mark.parametrize("fails", ["nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlDeviceGetName"])
def test_a_library_that_does_not_answer(put_nvml, set_gpus, fails):
    nvml = put_nvml(fails)
    set_gpus(BOTH[1])
    assert find_gpus() == [RTX]  # as nvidia-smi says
    assert (nvml.calls[-1] == "nvmlShutdown") == (fails != "nvmlInit_v2")


@pytest.mark.parametrize(
    ("code", "value", "expected"),
    [(0, 12080, (12, 8)), (0, 13000, (13, 0)), (34, 12080, (12, 4)), (0, 0, (12, 4))],
)
def test_cuda_of_the_driver(monkeypatch, no_gpu, code, value, expected):
    class Cuda:
        @staticmethod
        def cuDriverGetVersion(version):  # noqa: N802
            version._obj.value = value
            return code

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Cuda)
    script = no_gpu / "nvidia-smi"
    said = "| NVIDIA-SMI 550.54.15     Driver Version: 550.54.15     CUDA Version: 12.4     |"
    script.write_text(f"#!/bin/sh\necho '{said}'\n")
    assert find_cuda_version() == expected


def test_no_cuda_without_a_driver(monkeypatch, tmp_path):
    assert find_cuda_version() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_cuda_version() is None
