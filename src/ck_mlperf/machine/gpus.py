"""Which NVIDIA GPUs this machine has, and for which CUDA its driver is.

The driver's libraries are asked, which takes no process and makes no context: NVML, where
nvidia-smi takes its answers from, and one call of CUDA that needs no cuInit. Where they cannot be
loaded or do not answer, nvidia-smi is asked, which takes about a second.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
import subprocess

from ck_mlperf.common.errors import UserError

_QUERY = ("--query-gpu=index,uuid,name,compute_cap", "--format=csv,noheader")
_TIMEOUT_S = 60  # without the persistence daemon the driver may take seconds to wake up
_NVML = "libnvidia-ml.so.1"
_CUDA = "libcuda.so.1"
_NVML_TEXT_BYTES = 96  # NVML_DEVICE_UUID_V2_BUFFER_SIZE, NVML_DEVICE_NAME_V2_BUFFER_SIZE


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A kind of GPU: its name as the driver spells it, and its compute capability, '8.9'."""

    name: str
    compute_capability: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


def find_gpus() -> list[Gpu]:
    """The GPUs of this machine that CUDA_VISIBLE_DEVICES leaves, none twice; [] where none is.

    No driver or no device count as none. Raises UserError where NVML does not answer and nvidia-smi
    is too old to know of compute capabilities, or does not answer either.
    """
    rows = _ask_nvml()
    if rows is None:
        rows = _ask_nvidia_smi()
    gpus = [
        Gpu(name, capability) for index, uuid, name, capability in rows if _is_visible(index, uuid)
    ]
    return list(dict.fromkeys(gpus))


def find_cuda_version() -> tuple[int, int] | None:
    """The newest CUDA that the driver runs, (12, 8); None where there is no driver."""
    version = ctypes.c_int()
    try:
        code = ctypes.CDLL(_CUDA).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        code = 1
    if code == 0 and version.value:
        return version.value // 1000, version.value % 1000 // 10
    try:
        process = _run_nvidia_smi()
    except UserError:  # it says so where GPUs are asked for
        return None
    found = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", process.stdout) if process else None
    return (int(found[1]), int(found[2])) if found else None


_Row = tuple[str, str, str, str]
"""A GPU's index, UUID, name and compute capability."""


def _ask_nvml() -> list[_Row] | None:
    """All GPUs in nvidia-smi's order; None where NVML is missing or does not answer."""
    try:
        nvml = ctypes.CDLL(_NVML)
        if nvml.nvmlInit_v2():
            return None
        try:
            count = ctypes.c_uint()
            if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
                return None
            rows = [_ask_device(nvml, index) for index in range(count.value)]
        finally:
            nvml.nvmlShutdown()
    except (OSError, AttributeError):  # AttributeError: an old library without one of the calls
        return None
    known = [row for row in rows if row is not None]
    return known if len(known) == len(rows) else None


def _ask_device(nvml: ctypes.CDLL, index: int) -> _Row | None:
    handle, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
    uuid, name = (ctypes.create_string_buffer(_NVML_TEXT_BYTES) for _ in range(2))
    if (
        nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
        or nvml.nvmlDeviceGetUUID(handle, uuid, _NVML_TEXT_BYTES)
        or nvml.nvmlDeviceGetName(handle, name, _NVML_TEXT_BYTES)
        or nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor))
    ):
        return None
    texts = [buffer.value.decode(errors="replace").strip() for buffer in (uuid, name)]
    return str(index), texts[0], texts[1], f"{major.value}.{minor.value}"


def _ask_nvidia_smi() -> list[_Row]:
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
    return [
        (row[0], row[1], ", ".join(row[2:-1]).strip(), row[-1].strip())
        for row in rows
        if len(row) >= 4
    ]


def _run_nvidia_smi(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    """What it says; None where there is none. Raises UserError where it cannot be run or hangs."""
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

    Its numbers are nvidia-smi's only under CUDA_DEVICE_ORDER=PCI_BUS_ID; CUDA's own order cannot
    be known without CUDA, and there they leave all.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return True
    wanted = [text.strip() for text in visible.split(",") if text.strip()]
    by_number = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if not by_number and any(text.isdigit() for text in wanted):
        return True
    return any(index == text or (len(text) > 4 and uuid.startswith(text)) for text in wanted)
