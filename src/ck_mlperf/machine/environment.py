"""The machine and the software that a run had, without anything that names its owner."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ck_mlperf.machine.gpus import describe_gpus

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
_GIT_TIMEOUT_S = 10
_MIB = 1 << 20
_VARIABLE = re.compile(
    r"(OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|MALLOC|CUBLAS|CUDNN)_\w+|GLIBC_TUNABLES"
    r"|CUDA_(VISIBLE_DEVICES|DEVICE_\w+|MODULE_LOADING|LAUNCH_BLOCKING|MPS_\w+)"
    r"|NVIDIA_(TF32_OVERRIDE|VISIBLE_DEVICES)"
)


def describe_environment(repo_root: Path, root: Path = Path("/")) -> dict[str, Any]:
    """Processor, memory, GPUs, system and versions, as in the record; None: not known.

    repo_root: the root of this repository, whose git commit is noted. root: the folder with the
    kernel's proc and sys, and with what marks a container. Nothing here fails a run.
    """
    return {
        "cpu": _describe_cpu(root),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MIB,
        "gpus": describe_gpus(),
        "os": _read_os_name(),
        "kernel": f"{platform.system()} {platform.release()}",
        "container": _detect_container(root),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": _list_packages(),
        "repository": _describe_repository(repo_root),
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if _VARIABLE.fullmatch(name) and "/" not in value  # a path names its owner
        },
    }


def _describe_cpu(root: Path) -> dict[str, Any]:
    frequency = root / "sys/devices/system/cpu/cpu0/cpufreq"
    fields = _read_cpu_fields(root)
    return {
        "model": _name_cpu(fields, root),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "cores_quota": _read_quota(root),
        "governor": read_text(frequency / "scaling_governor"),
        "min_clock_mhz": _read_mhz(frequency / "scaling_min_freq"),
        "max_clock_mhz": _read_mhz(frequency / "scaling_max_freq"),
        "microcode": fields.get("microcode"),
    }


def _read_cpu_fields(root: Path) -> dict[str, str]:
    """What the kernel says of the first processor."""
    fields: dict[str, str] = {}
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def _name_cpu(fields: Mapping[str, str], root: Path) -> str | None:
    # Arm has no model name there; its boards have one in the device tree.
    board = (read_text(root / "proc/device-tree/model") or "").rstrip("\0")
    return fields.get("model name") or board or None


def _read_quota(root: Path) -> float | None:
    """The cores' worth of time that a control group allows, where it limits it."""
    text = read_text(root / "sys/fs/cgroup/cpu.max")
    with contextlib.suppress(ValueError):  # "max 100000" where there is no limit
        quota_us, period_us = map(int, (text or "").split())
        return quota_us / period_us
    return None


def _read_mhz(path: Path) -> float | None:
    text = read_text(path)
    return None if text is None else int(text) / 1000


def _read_os_name() -> str | None:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    return None


def _detect_container(root: Path) -> dict[str, str] | None:
    """Which kind of container this runs in, and what gave it away."""
    if (root / ".dockerenv").exists():
        return {"kind": "docker", "detected_by": ".dockerenv"}
    if (root / "run/.containerenv").exists():
        return {"kind": "podman", "detected_by": ".containerenv"}
    for name, kind in (("container", "systemd's or podman's"), ("KUBERNETES_PORT", "kubernetes")):
        if os.environ.get(name):
            return {"kind": kind, "detected_by": f"variable {name}"}
    groups = read_text(root / "proc/1/cgroup") or ""
    for kind in ("docker", "kubepods", "containerd", "lxc"):
        if kind in groups:
            return {"kind": kind, "detected_by": "control groups of process 1"}
    return None


def _list_packages() -> dict[str, str]:
    # Here: its import takes 20 ms, and a run asks after its test.
    from importlib import metadata

    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
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
