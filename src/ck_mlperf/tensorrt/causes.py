"""What the user can do about a message of TensorRT, CUDA or the loader: one table.

Advice follows from a cause that the messages name. If they name none, there is no advice: a guess
costs the user more than silence.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from ck_mlperf.tensorrt.api.interface import Flavour

Advise: TypeAlias = "Callable[[re.Match[str], Flavour, bool], str]"

_MAPS = Path("/proc/self/maps")


def advise(
    errors: Sequence[str], warnings: Sequence[str], flavour: Flavour, building: bool = False
) -> str:
    """What to do about a failure, one or two sentences; '' if its cause is not known.

    errors, warnings: the messages, in order. flavour: the TensorRT that gave them. building:
    whether a plan is being built; else it is loaded or run. The first cause of the table that an
    error names decides. Only a missing kernel may follow from something that TensorRT has warned of
    before: it skips tactics that need too much memory.
    """
    if any(_NO_KERNEL.search(error) for error in errors):
        for warning in warnings:
            found = _SKIPPED.search(warning)
            if found:
                return _advise_memory(found, flavour, building)
    for pattern, advice in CAUSES:
        for error in errors:
            found = re.search(pattern, error)
            if found and isinstance(advice, str):
                node = found.groupdict().get("node", "").strip().removesuffix(".")
                return advice.format(node=node, version=flavour.version, choices=flavour.choices)
            if found and callable(advice):
                return advice(found, flavour, building)
    return ""


def add_advice(
    reason: str,
    errors: Sequence[str],
    warnings: Sequence[str],
    flavour: Flavour,
) -> str:
    """The reason of a failure, with the advice about it if there is any."""
    advice = advise(errors, warnings, flavour)
    return f"{reason.rstrip('.')}. {advice}" if advice else reason


def _advise_library(found: re.Match[str], flavour: Flavour, building: bool) -> str:
    name = found["library"]
    if re.match(r"lib(cuda|nvidia-[\w-]+)\.so", name):
        return (
            f"{name} is part of the NVIDIA driver: install the driver, or start the container with "
            "--gpus=all"
        )
    for pattern, package in _CUDA_PACKAGES:
        if re.match(pattern, name):
            return (
                f"{name} is part of CUDA, not of TensorRT: pip install {package}, or put the "
                "folder that holds it on LD_LIBRARY_PATH"
            )
    what = f"{name} is one of TensorRT's own libraries"
    capability = re.search(r"_sm(\d+)(\d)", name)
    if capability:
        what += f", the builder's for compute capability {capability[1]}.{capability[2]}"
    package, is_pip, is_installed = _find_carrier(flavour)
    if is_pip:
        state = "which is installed without it" if is_installed else "which is not installed"
        again = " --force-reinstall --no-deps" if is_installed else ""
        return (
            f"{what}. It is in {package}, {state}: pip install{again} {package}, which comes from "
            "NVIDIA's package index"
        )
    folder = _find_loaded_folder(flavour)
    known = f" (the others were loaded from {folder}, which lacks it)" if folder else ""
    return (
        f"{what}. Put the folder that holds it on LD_LIBRARY_PATH{known}; if TensorRT came from "
        f"pip, {package} has it"
    )


# The number in the file name is CUDA's major version, except cuDNN's, which is its own.
_CUDA_PACKAGES = (
    (r"lib(cublas|cublasLt|nvblas)\.so\.13", "nvidia-cublas"),
    (r"lib(cublas|cublasLt|nvblas)\b", "nvidia-cublas-cu12"),
    (r"libcudart\.so\.13", "nvidia-cuda-runtime"),
    (r"libcudart\b", "nvidia-cuda-runtime-cu12"),
    (r"libnvrtc[\w-]*\.so\.13", "nvidia-cuda-nvrtc"),
    (r"libnvrtc\b", "nvidia-cuda-nvrtc-cu12"),
    (r"libcudnn", "nvidia-cudnn-cu12 (or -cu11, -cu13, by TensorRT's CUDA version)"),
)


def _find_carrier(flavour: Flavour) -> tuple[str, bool, bool]:
    """The distribution with TensorRT's libraries, as a requirement; whether TensorRT came from
    pip; whether that distribution is installed."""
    names = flavour.distributions
    for name in names:
        # Not `name` itself: for 8.6 that is `tensorrt`, which may be a Debian package.
        has = {part: _is_installed(name + part) for part in ("-libs", "-bindings")}
        if any(has.values()):
            return f"{name}-libs=={flavour.version}", True, has["-libs"]
    return " or ".join(f"{name}-libs" for name in names[:2]), False, False


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _find_loaded_folder(flavour: Flavour) -> str | None:
    """Where this process has loaded TensorRT's main library from."""
    try:
        maps = _MAPS.read_text(errors="replace")
    except OSError:
        return None
    found = re.search(rf"(/\S.*)/{flavour.library}\.so", maps)
    return found[1] if found else None


def _advise_no_gpu(found: re.Match[str], flavour: Flavour, building: bool) -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = "not set" if visible is None else f"'{visible}'"
    return (
        f"The driver shows no GPU to this process. CUDA_VISIBLE_DEVICES is {shown}; does "
        "`nvidia-smi` list one? A container must be started with --gpus=all"
    )


def _advise_turing(found: re.Match[str], flavour: Flavour, building: bool) -> str:
    if not flavour.builds_for_list:
        return ""
    return (
        "For Turing (7.5) convert the model to fp16, or build for newer GPUs only: "
        "--compute-capabilities 8.6,8.9 (with CK --env.TENSORRT_COMPUTE_CAPABILITIES=8.6,8.9)"
    )


def _advise_memory(found: re.Match[str], flavour: Flavour, building: bool) -> str:
    free = "end the other processes on the GPU (`nvidia-smi` lists them)"
    if not building:
        return f"The GPU has not enough memory: {free}, or use a smaller maxbatch"
    return (
        f"The GPU has not enough memory to build this: {free}, use a smaller maxbatch, or limit "
        "what a layer may use (--workspace-mib; with CK --env.TENSORRT_WORKSPACE_MIB=1024)"
    )


_NO_KERNEL = re.compile(
    r"[Cc]ould not find any implementation for node (?P<node>.+?)(?= due to|,|\.\s|\.?\)*$)"
)
_SKIPPED = re.compile(r"insufficient memory|[Mm]emory is insufficient|out of memory", re.IGNORECASE)
_LIBRARY = r"(?P<library>lib[\w.+-]*\.so[\w.]*?)"

# What an error says, and the advice or what composes it. The first that matches decides.
CAUSES: tuple[tuple[str, str | Advise], ...] = (
    (rf"{_LIBRARY}:? cannot open shared object file", _advise_library),
    (
        rf"(?:[Uu]nable to|[Cc]ould not|[Ff]ailed to|[Cc]annot) (?:load|find|open)"
        rf"(?: library)?:? {_LIBRARY}(?=[.:,;)]*(?:\s|$))",
        _advise_library,
    ),
    (
        r"driver version is insufficient|initialization failure with error: 35\b",
        "There is no NVIDIA driver, or one for an older CUDA than this TensorRT was made for: "
        "check that `nvidia-smi` works, and which CUDA version it shows. Update the driver, "
        "install a TensorRT for its CUDA version, or start the container with --gpus=all",
    ),
    (r"no CUDA-capable device|initialization failure with error: 100\b", _advise_no_gpu),
    (
        r"devices? (?:is/are|are|is) busy|failure with error: 46\b",
        "Another process uses the GPU exclusively, or its compute mode allows no process: "
        "`nvidia-smi` shows both",
    ),
    (
        r"system not yet initialized|failure with error: 802\b",
        "The GPUs are not ready. With NVSwitch they need nvidia-fabricmanager, of the driver's "
        "version: `systemctl status nvidia-fabricmanager` says whether it runs",
    ),
    (
        r"driver mismatch|unsupported display driver|[Ff]orward compatib"
        r"|failure with error: 80[34]\b",
        "The driver's kernel module and its libraries have different versions, or a CUDA "
        "compatibility package is in the way: restart the machine, which loads the new module, or "
        "take CUDA's compat folder off LD_LIBRARY_PATH",
    ),
    (
        r"SM \d+ is not supported|Unsupported SM|no kernel image is available"
        r"|cannot run on this GPU",
        "TensorRT {version} was not made for this GPU. What runs on which: {choices}",
    ),
    (r"Turing", _advise_turing),
    (
        r"incompatible device|not compatible with this version of TensorRT",
        "The plan was built by another version or for another kind of GPU: build it again here",
    ),
    (
        r"OutOfMemory|[Oo]ut of memory|ran out of memory|[Ii]nsufficient memory"
        r"|Requested amount of (?:GPU )?memory|failure with error: 2\b",
        _advise_memory,
    ),
    (
        rf"{_NO_KERNEL.pattern}(?=.*workspace)",
        "No kernel for node {node} fits the workspace: raise --workspace-mib (with CK "
        "--env.TENSORRT_WORKSPACE_MIB), or leave it out to allow all of the GPU's memory",
    ),
    (
        _NO_KERNEL.pattern,
        "TensorRT {version} has no kernel for node {node} with these types on this GPU: convert "
        "the model to another precision, or change that node",
    ),
)
