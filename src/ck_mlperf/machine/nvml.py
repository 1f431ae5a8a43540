"""NVML, the driver's library that nvidia-smi itself asks, through ctypes.

Hooks ask it in CK's own interpreter, before any package is installed. Functions, structures and
numbers are those of NVIDIA's header nvml.h.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
_TEXT_BYTES = 96  # NVML_DEVICE_UUID_V2_BUFFER_SIZE, NVML_DEVICE_NAME_V2_BUFFER_SIZE
_SM, _MEMORY = 1, 2  # nvmlClockType_t
_ON_DIE = 0  # nvmlTemperatureSensors_t
_MOST_PROCESSES = 1024
_NOT_AVAILABLE = ctypes.c_ulonglong(-1).value  # NVML_VALUE_NOT_AVAILABLE
_MIB = 1 << 20
# The second is the name up to driver 530; newer drivers still have it.
_CLOCKS_EVENT_REASONS = (
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
)

Device = ctypes.c_void_p
"""A GPU's handle, valid while NVML is open."""


class _Memory(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_ulonglong) for name in ("total", "free", "used"))


class _Utilization(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint) for name in ("gpu", "memory"))


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used_memory", ctypes.c_ulonglong),
        ("instances", ctypes.c_uint * 2),
    )


@contextlib.contextmanager
def open_nvml() -> Iterator[Nvml | None]:
    """NVML for the length of the block; None where it is missing or does not work."""
    try:
        nvml = Nvml(ctypes.CDLL(LIBRARY))
    except OSError:
        nvml = None
    if nvml is None or not nvml.call("nvmlInit_v2"):
        yield None
        return
    try:
        yield nvml
    finally:
        nvml.call("nvmlShutdown")


class Nvml:
    """Questions to an open NVML. What it cannot answer is None."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def list_devices(self) -> list[Device]:
        """All GPUs, in nvidia-smi's order."""
        ask, count = "nvmlDeviceGetHandleByIndex_v2", self._read_number("nvmlDeviceGetCount_v2")
        return [self._read(ask, Device, index) for index in range(count or 0)]

    def find_device(self, uuid: str) -> Device | None:
        found: Device | None = self._read("nvmlDeviceGetHandleByUUID", Device, uuid.encode())
        return found

    def identify(self, device: Device) -> tuple[str | None, str | None, str | None]:
        """UUID, name and compute capability, '8.9'."""
        major = ctypes.c_int()
        ask, first = "nvmlDeviceGetCudaComputeCapability", ctypes.byref(major)
        minor = self._read_number(ask, device, first)
        return (
            self._read_text("nvmlDeviceGetUUID", device),
            self._read_text("nvmlDeviceGetName", device),
            None if minor is None else f"{major.value}.{minor}",
        )

    def describe(self, device: Device) -> dict[str, Any]:
        """What a record's environment says of a GPU."""
        memory = self._read("nvmlDeviceGetMemoryInfo", _Memory, device)
        power_mw = self._read_number("nvmlDeviceGetPowerManagementLimit", device)
        clock = "nvmlDeviceGetMaxClockInfo"
        return {
            "name": self._read_text("nvmlDeviceGetName", device),
            "driver": self._read_text("nvmlSystemGetDriverVersion"),
            "memory_mib": memory and memory.total // _MIB,
            "max_sm_clock_mhz": self._read_number(clock, device, _SM),
            "max_memory_clock_mhz": self._read_number(clock, device, _MEMORY),
            "power_limit_w": power_mw and power_mw / 1000,
        }

    def sample(self, device: Device) -> dict[str, float | None]:
        """What a GPU does now; `clocks_event_reasons` is a bit mask."""
        power_mw = self._read_number("nvmlDeviceGetPowerUsage", device)
        use = self._read("nvmlDeviceGetUtilizationRates", _Utilization, device)
        masks = (self._read(ask, ctypes.c_ulonglong, device) for ask in _CLOCKS_EVENT_REASONS)
        clock = "nvmlDeviceGetClockInfo"
        return {
            "sm_clock_mhz": self._read_number(clock, device, _SM),
            "memory_clock_mhz": self._read_number(clock, device, _MEMORY),
            "temperature_c": self._read_number("nvmlDeviceGetTemperature", device, _ON_DIE),
            "power_w": power_mw and power_mw / 1000,
            "utilization_percent": use and use.gpu,
            "clocks_event_reasons": next((m.value for m in masks if m is not None), None),
        }

    def list_processes(self, device: Device) -> list[tuple[int, float | None]]:
        """(process, MiB of the GPU's memory) of each that computes there; [] also if not known.

        In a container the process numbers may be the host's.
        """
        count, found = ctypes.c_uint(_MOST_PROCESSES), (_Process * _MOST_PROCESSES)()
        ask = "nvmlDeviceGetComputeRunningProcesses_v3"
        if not self.call(ask, device, ctypes.byref(count), found):
            return []
        return [
            (process.pid, None if memory == _NOT_AVAILABLE else memory / _MIB)
            for process in found[: count.value]
            for memory in (process.used_memory,)
        ]

    def call(self, function: str, *arguments: Any) -> bool:
        """Whether this driver has the function and it succeeded."""
        try:
            return not getattr(self._library, function)(*arguments)
        except AttributeError:
            return False

    def _read(self, function: str, kind: type[Any], *arguments: Any) -> Any:
        """What the function puts into its last argument, of a type of ctypes."""
        answer = kind()
        return answer if self.call(function, *arguments, ctypes.byref(answer)) else None

    def _read_number(self, function: str, *arguments: Any) -> int | None:
        answer = self._read(function, ctypes.c_uint, *arguments)
        return None if answer is None else int(answer.value)

    def _read_text(self, function: str, *arguments: Any) -> str | None:
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        is_known = self.call(function, *arguments, text, _TEXT_BYTES)
        return text.value.decode(errors="replace").strip() if is_known else None
