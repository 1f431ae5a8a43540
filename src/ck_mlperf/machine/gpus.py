"""Which NVIDIA GPUs this machine has, and for which CUDA its driver is.

The driver's libraries are asked, NVML and CUDA, which takes no process; nvidia-smi only where they
cannot be loaded or do not answer a question about the kinds of GPUs or the driver's CUDA.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ck_mlperf.common.errors import UserError
from ck_mlperf.machine.nvml import open_nvml

_QUERY = ("--query-gpu=index,uuid,name,compute_cap", "--format=csv,noheader")
_TIMEOUT_S = 60  # without the persistence daemon the driver may take seconds to wake up
CUDA_LIBRARY = "libcuda.so.1"
# CUDA_ERROR_NO_DEVICE, CUDA_ERROR_INVALID_DEVICE
_NO_DEVICE = (100, 101)


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: its name as the driver spells it, and its compute capability, '8.9'."""

    name: str
    compute_capability: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


class NoGpuError(UserError):
    """There is no driver, no GPU, or none that works."""


def find_gpus() -> list[Gpu]:
    """The kinds of GPUs that CUDA_VISIBLE_DEVICES leaves, none twice; [] where there is none.

    A machine without a driver counts as one without GPUs. Raises UserError where NVML does not
    answer and nvidia-smi does not either, or is too old to know compute capabilities.
    """
    with open_nvml() as nvml:
        rows = [nvml.identify(device) for device in nvml.list_devices()] if nvml else []
    known = [(uuid, name, cap) for uuid, name, cap in rows if uuid and name and cap]
    if not known or len(known) < len(rows):
        known = _ask_nvidia_smi()
    gpus = [
        Gpu(name, capability)
        for index, (uuid, name, capability) in enumerate(known)
        if _is_visible(str(index), uuid)
    ]
    return list(dict.fromkeys(gpus))


def describe_gpus() -> list[dict[str, Any]]:
    """Name, driver, memory and limits of each NVIDIA GPU; empty where NVML does not work."""
    with open_nvml() as nvml:
        found = [nvml.describe(device) for device in nvml.list_devices()] if nvml else []
    return [gpu for gpu in found if gpu["name"] and gpu["driver"]]


def find_cuda_version() -> tuple[int, int] | None:
    """The newest CUDA that the driver runs, (12, 8); None where there is no driver."""
    version = ctypes.c_int()
    try:
        code = ctypes.CDLL(CUDA_LIBRARY).cuDriverGetVersion(
            ctypes.byref(version)
        )  # needs no cuInit
    except (OSError, AttributeError):
        code = 1
    if code == 0 and version.value:
        return version.value // 1000, version.value % 1000 // 10
    try:
        process = _run_nvidia_smi()
    except UserError:  # `find_gpus` reports it
        return None
    found = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", process.stdout) if process else None
    return (int(found[1]), int(found[2])) if found else None


def list_cuda_devices() -> tuple[int, ...]:
    """CUDA's numbers of the GPUs that this process sees, rising from 0.

    Asks CUDA, which respects CUDA_VISIBLE_DEVICES and MIG; NVML does not, and Jetson has none.
    Raises NoGpuError where there is no driver or no GPU.
    """
    try:
        cuda = ctypes.CDLL(CUDA_LIBRARY)
    except OSError as error:
        raise NoGpuError(
            f"no NVIDIA driver is installed: {error}. Install it (in a container: start that with "
            "--gpus=all), or choose a model for the CPU"
        ) from error
    count = ctypes.c_int(0)
    code = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if code not in (0, *_NO_DEVICE):
        raise NoGpuError(
            f"the NVIDIA driver does not work (cuInit, cuDeviceGetCount: CUDA's error {code}). See "
            "what `nvidia-smi` says"
        )
    if code or not count.value:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        shown = "not set" if visible is None else f"'{visible}'"
        raise NoGpuError(
            f"the NVIDIA driver finds no GPU (cuInit, cuDeviceGetCount: {code}). "
            f"CUDA_VISIBLE_DEVICES is {shown}; does `nvidia-smi` list one?"
        )
    return tuple(range(count.value))


def find_gpu_uuid(device: int) -> str | None:
    """The UUID, as NVML spells it, of the GPU that CUDA numbers `device`; None: not known.

    NVML numbers GPUs by the bus, CUDA by speed and by what CUDA_VISIBLE_DEVICES leaves. For a MIG
    instance it is the UUID of the whole GPU.
    """
    try:
        cuda = ctypes.CDLL(CUDA_LIBRARY)
    except OSError:
        return None
    handle, found = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    if (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(handle), device)
        or cuda.cuDeviceGetUuid(ctypes.byref(found), handle)
    ):
        return None
    return f"GPU-{UUID(bytes=bytes(found))}"


def _ask_nvidia_smi() -> list[tuple[str, str, str]]:
    """Each GPU's UUID, name and compute capability."""
    process = _run_nvidia_smi(*_QUERY)
    if process is None:
        return []
    if "is not a valid field" in process.stdout + process.stderr:
        raise UserError(
            "this nvidia-smi does not tell a GPU's compute capability. "
            "Install a driver of version 510 or newer"
        )
    if process.returncode:
        return []
    rows = [line.split(", ") for line in process.stdout.splitlines()]
    return [(row[1], ", ".join(row[2:-1]).strip(), row[-1].strip()) for row in rows if len(row) > 3]


def _run_nvidia_smi(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    """Its output; None where it is not installed. Raises UserError where it cannot run or hangs."""
    try:
        return subprocess.run(
            ["nvidia-smi", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired:
        raise UserError(
            f"nvidia-smi did not answer in {_TIMEOUT_S} s: `dmesg` may say why"
        ) from None
    except OSError as error:
        raise UserError(f"nvidia-smi cannot be run: {error.strerror or error}") from None


def _is_visible(index: str, uuid: str) -> bool:
    """Whether CUDA_VISIBLE_DEVICES leaves this GPU.

    Its numbers are nvidia-smi's only under CUDA_DEVICE_ORDER=PCI_BUS_ID. CUDA's own order is not
    known without CUDA, so there numbers leave all GPUs.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return True
    wanted = [text.strip() for text in visible.split(",") if text.strip()]
    by_number = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if not by_number and any(text.isdigit() for text in wanted):
        return True
    return any(index == text or (len(text) > 4 and uuid.startswith(text)) for text in wanted)
