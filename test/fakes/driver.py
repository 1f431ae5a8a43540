"""NVIDIA's driver as tests want it: its two libraries and nvidia-smi."""

# ruff: noqa: N802, N815

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ck_mlperf.machine import gpus, nvml

MIB = 1 << 20
UNKNOWN_MEMORY = 2**64 - 1


@dataclass
class FakeGpu:
    name: str = "NVIDIA H100 80GB HBM3"
    capability: tuple[int, int] = (9, 0)
    sm_clock_mhz: int = 1980
    power_mw: int = 650_500
    utilization: int = 100
    reasons: int = 0
    processes: list[tuple[int, int]] = field(default_factory=list)
    """(process, bytes)."""
    uuid: bytes = bytes(range(0xA0, 0xB0))

    def spell_uuid(self) -> str:
        digits = self.uuid.hex()
        parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        return f"GPU-{'-'.join(parts)}"


class FakeDriver:
    """libcuda and libnvidia-ml in one, by ctypes' way of calling.

    failing: functions that return an error, by name. missing: those that an old driver has not.
    """

    def __init__(self, *gpus: FakeGpu, failing: Sequence[str] = (), missing: Sequence[str] = ()):
        self.gpus = gpus
        self.failing = dict.fromkeys(failing, 999)
        self.missing = missing
        self.cuda_version = 12080
        self.calls: list[str] = []

    def load(self, name: str) -> FakeDriver:
        if name not in (nvml.LIBRARY, gpus.CUDA_LIBRARY):
            raise OSError(f"{name}: no such library")
        return self

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name.startswith("do_") or name in self.missing:
            raise AttributeError(name)
        do = getattr(self, f"do_{name}")

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            return self.failing.get(name) or do(*arguments) or 0

        return call

    def find(self, handle: Any) -> FakeGpu:
        return self.gpus[handle.value - 100]

    def do_nvmlInit_v2(self): ...

    def do_nvmlShutdown(self): ...

    def do_nvmlDeviceGetCount_v2(self, count):
        count._obj.value = len(self.gpus)

    def do_nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        handle._obj.value = 100 + index

    def do_nvmlDeviceGetHandleByUUID(self, uuid, handle):
        found = [n for n, gpu in enumerate(self.gpus) if gpu.spell_uuid() == uuid.decode()]
        handle._obj.value = 100 + found[0] if found else None
        return 0 if found else 6

    def do_nvmlDeviceGetUUID(self, handle, text, size):
        assert size <= len(text)
        text.value = self.find(handle).spell_uuid().encode()

    def do_nvmlDeviceGetName(self, handle, text, size):
        assert size <= len(text)
        text.value = self.find(handle).name.encode()

    def do_nvmlSystemGetDriverVersion(self, text, size):
        text.value = b"550.54.15"

    def do_nvmlDeviceGetCudaComputeCapability(self, handle, major, minor):
        major._obj.value, minor._obj.value = self.find(handle).capability

    def do_nvmlDeviceGetMemoryInfo(self, handle, memory):
        memory._obj.total = 81559 * MIB + 1

    def do_nvmlDeviceGetMaxClockInfo(self, handle, kind, clock):
        clock._obj.value = {1: 1980, 2: 2619}[kind]

    def do_nvmlDeviceGetPowerManagementLimit(self, handle, power):
        power._obj.value = 700_000

    def do_nvmlDeviceGetClockInfo(self, handle, kind, clock):
        clock._obj.value = {1: self.find(handle).sm_clock_mhz, 2: 2619}[kind]

    def do_nvmlDeviceGetTemperature(self, handle, sensor, temperature):
        assert sensor == 0
        temperature._obj.value = 60

    def do_nvmlDeviceGetPowerUsage(self, handle, power):
        power._obj.value = self.find(handle).power_mw

    def do_nvmlDeviceGetUtilizationRates(self, handle, rates):
        rates._obj.gpu = self.find(handle).utilization

    def do_nvmlDeviceGetCurrentClocksEventReasons(self, handle, mask):
        mask._obj.value = self.find(handle).reasons

    do_nvmlDeviceGetCurrentClocksThrottleReasons = do_nvmlDeviceGetCurrentClocksEventReasons

    def do_nvmlDeviceGetComputeRunningProcesses_v3(self, handle, count, found):
        listed = self.find(handle).processes
        assert count._obj.value >= len(listed)
        count._obj.value = len(listed)
        for process, (pid, memory) in zip(found, listed, strict=False):
            process.pid, process.used_memory = pid, memory

    def do_cuInit(self, flags):
        assert flags == 0

    def do_cuDriverGetVersion(self, version):
        version._obj.value = self.cuda_version

    def do_cuDeviceGetCount(self, count):
        count._obj.value = len(self.gpus)

    def do_cuDeviceGet(self, handle, device):
        handle._obj.value = 100 + device
        return 0 if device < len(self.gpus) else 101

    def do_cuDeviceGetUuid(self, uuid, handle):
        uuid._obj[:] = self.find(handle).uuid


@pytest.fixture
def put_driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeDriver]:
    """put_driver(FakeGpu(), failing=...): this process's driver from now on."""

    def put(*gpus: FakeGpu, **options: Any) -> FakeDriver:
        driver = FakeDriver(*gpus, **options)
        monkeypatch.setattr(ctypes, "CDLL", driver.load)
        return driver

    return put


@pytest.fixture(autouse=True)
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs in front of PATH: nvidia-smi is one that finds no GPU.

    For all tests of a room whose conftest imports this: they say themselves which GPUs there are,
    and a machine that has some must not change them. Here and in processes the driver's libraries
    are none.
    """
    folder = tmp_path / "programs"
    folder.mkdir()
    for module, name in ((nvml, "LIBRARY"), (gpus, "CUDA_LIBRARY")):
        library = folder / getattr(module, name)
        library.touch()  # the loader takes the first that it finds, and refuses this
        monkeypatch.setattr(module, name, str(library))
    libraries = [str(folder), os.environ.get("LD_LIBRARY_PATH", "")]
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep.join(filter(None, libraries)))
    write_nvidia_smi(folder, "No devices were found", status=6)
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    return folder


def write_nvidia_smi(folder: Path, text: str, status: int = 0) -> None:
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {status}\n")
    script.chmod(0o755)


@pytest.fixture
def set_gpus(no_gpu: Path) -> Callable[..., None]:
    """set_gpus(('NVIDIA A100', '8.0'), ...): what nvidia-smi says from now on."""

    return lambda *gpus: write_gpus(no_gpu, *gpus)


def write_gpus(folder: Path, *gpus: tuple[str, str]) -> None:
    """Put a nvidia-smi into a folder of programs that finds these GPUs."""
    lines = [f"{i}, GPU-{i}abc, {name}, {cap}" for i, (name, cap) in enumerate(gpus)]
    write_nvidia_smi(folder, "\n".join(lines))
