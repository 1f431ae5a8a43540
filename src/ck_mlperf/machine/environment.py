"""The machine and the software that a run had, without anything that names its owner."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.machine.nvidia_smi import parse_number, query_nvidia_smi

PACKAGES = (
    "ck",
    "mlcommons-loadgen",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "opencv-python",
    "opencv-python-headless",
    "pillow",
    "pycuda",
    "scikit-learn",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx-cu12",
    "tensorrt-rtx-cu13",
)
_GPU_FIELDS = {
    "name": "name",
    "driver_version": "driver",
    "memory.total": "memory_mib",
    "clocks.max.sm": "max_sm_clock_mhz",
    "clocks.max.memory": "max_memory_clock_mhz",
    "power.limit": "power_limit_w",
}
_GIT_TIMEOUT_S = 10
_CUDA_LIBRARY = "libcuda.so.1"
# CUDA_ERROR_NO_DEVICE, CUDA_ERROR_INVALID_DEVICE
_NO_DEVICE = (100, 101)
_MIB = 1 << 20


def describe_environment(repo_root: Path) -> dict[str, Any]:
    """Processor, memory, GPUs, system and versions, as in the record; None: not known.

    repo_root: the root of this repository, whose git commit is noted. Nothing here fails a run.
    """
    return {
        "cpu": _describe_cpu(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MIB,
        "gpus": _list_gpus(),
        "os": _read_os_name(),
        "kernel": f"{platform.system()} {platform.release()}",
        "container": _detect_container(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": _list_packages(),
        "repository": _describe_repository(repo_root),
    }


class NoGpuError(UserError):
    """There is no driver, no GPU, or none that works."""


def list_cuda_devices() -> tuple[int, ...]:
    """CUDA's numbers of the GPUs that this process sees, rising from 0.

    Asks the driver itself, which minds CUDA_VISIBLE_DEVICES and GPUs that are cut up; nvidia-smi
    does not, and Jetson has none. Raises NoGpuError where there is no driver or no GPU.
    """
    try:
        cuda = ctypes.CDLL(_CUDA_LIBRARY)
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
    """The UUID of the GPU that CUDA numbers `device`, as nvidia-smi takes it; None: not known.

    nvidia-smi numbers by the bus, CUDA by speed and by what CUDA_VISIBLE_DEVICES leaves. For an
    instance of a GPU that is cut up, it is that GPU's.
    """
    try:
        cuda = ctypes.CDLL(_CUDA_LIBRARY)
    except OSError:
        return None
    handle, found = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    if (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(handle), device)
        or cuda.cuDeviceGetUuid(ctypes.byref(found), handle)
    ):
        return None
    return f"GPU-{uuid.UUID(bytes=bytes(found))}"


def _describe_cpu() -> dict[str, Any]:
    frequency = Path("/sys/devices/system/cpu/cpu0/cpufreq")
    return {
        "model": _read_cpu_model(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "cores_quota": _read_quota(),
        "governor": read_text(frequency / "scaling_governor"),
        "min_clock_mhz": _read_mhz(frequency / "scaling_min_freq"),
        "max_clock_mhz": _read_mhz(frequency / "scaling_max_freq"),
    }


def _read_cpu_model() -> str | None:
    fields: dict[str, str] = {}
    for line in (read_text(Path("/proc/cpuinfo")) or "").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    # Arm has no model name there; its boards have one in the device tree.
    board = (read_text(Path("/proc/device-tree/model")) or "").rstrip("\0")
    return fields.get("model name") or board or None


def _read_quota() -> float | None:
    """The cores' worth of time that a control group allows, where it limits it."""
    text = read_text(Path("/sys/fs/cgroup/cpu.max"))
    with contextlib.suppress(ValueError):  # "max 100000" where there is no limit
        quota_us, period_us = map(int, (text or "").split())
        return quota_us / period_us
    return None


def _read_mhz(path: Path) -> float | None:
    text = read_text(path)
    return None if text is None else int(text) / 1000


def _list_gpus() -> list[dict[str, Any]]:
    """Name, driver, memory and limits of each NVIDIA GPU; empty where nvidia-smi does not work."""
    return [
        {
            name: value if name in ("name", "driver") else parse_number(value)
            for name, value in zip(_GPU_FIELDS.values(), row, strict=True)
        }
        for row in query_nvidia_smi(f"--query-gpu={','.join(_GPU_FIELDS)}") or ()
        if len(row) == len(_GPU_FIELDS)
    ]


def _read_os_name() -> str | None:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    return None


def _detect_container() -> dict[str, str] | None:
    """Which kind of container this runs in, and what gave it away."""
    if Path("/.dockerenv").exists():
        return {"kind": "docker", "detected_by": ".dockerenv"}
    if Path("/run/.containerenv").exists():
        return {"kind": "podman", "detected_by": ".containerenv"}
    for name, kind in (("container", "systemd's or podman's"), ("KUBERNETES_PORT", "kubernetes")):
        if os.environ.get(name):
            return {"kind": kind, "detected_by": f"variable {name}"}
    groups = read_text(Path("/proc/1/cgroup")) or ""
    for kind in ("docker", "kubepods", "containerd", "lxc"):
        if kind in groups:
            return {"kind": kind, "detected_by": "control groups of process 1"}
    return None


def _list_packages() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _describe_repository(root: Path) -> dict[str, Any] | None:
    """The commit that is checked out, and whether nothing differs from it; None: not under git."""
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None  # a repository around this one says nothing of it
    command = ["git", "-C", str(root), "-c", "safe.directory=*", "-c", "core.fsmonitor=false"]
    command += ["status", "--porcelain=v2", "--branch"]
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("GIT_")}
    try:
        process = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if process.returncode:
        return None
    lines = process.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), None)
    return {
        "commit": None if commit == "(initial)" else commit,
        "clean": all(line.startswith("#") for line in lines),
    }


def read_text(path: Path) -> str | None:
    """What a small file of the system says, stripped; None where it cannot be read."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return None
