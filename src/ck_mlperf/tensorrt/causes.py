"""What the user can do about a message of TensorRT, CUDA or the loader: one table.

Advice follows from a cause that the messages name. If they name none, there is no advice: a guess
costs the user more than silence.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

_MAPS = Path("/proc/self/maps")


@dataclasses.dataclass(frozen=True)
class Situation:
    """Where a message came from. What it says of the TensorRT is as `Flavour` has it.

    version: '' if it is not known. choices: how to install its versions, and what they run on.
    building: whether a plan is being built; else it is loaded or run.
    """

    version: str
    choices: str
    distributions: tuple[str, ...]
    library: str
    builds_for_list: bool
    building: bool = False


def advise(errors: Sequence[str], warnings: Sequence[str], situation: Situation) -> str:
    """What to do about a failure, one or two sentences; '' if its cause is not known.

    errors, warnings: the messages, in order. The first cause of the table that an error names
    decides. Only a search for a kernel can fail because of something that TensorRT has warned of
    before: it skips tactics that need too much memory.
    """
    if any(_NO_KERNEL.search(error) for error in errors):
        for warning in warnings:
            found = _SKIPPED.search(warning)
            if found:
                return _advise_memory(found, situation)
    for pattern, describe in CAUSES:
        for error in errors:
            found = pattern.search(error)
            if found:
                return describe(found, situation)
    return ""


def add_advice(
    reason: str, errors: Sequence[str], warnings: Sequence[str], situation: Situation
) -> str:
    """The reason of a failure, with the advice about it if there is any."""
    advice = advise(errors, warnings, situation)
    return f"{reason.rstrip('.')}. {advice}" if advice else reason


# Libraries


def _advise_library(found: re.Match[str], situation: Situation) -> str:
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
    package, is_pip, is_installed = _find_carrier(situation)
    if is_pip:
        state = "which is installed without it" if is_installed else "which is not installed"
        again = " --force-reinstall --no-deps" if is_installed else ""
        return (
            f"{what}. It is in {package}, {state}: pip install{again} {package}, which comes from "
            "NVIDIA's package index"
        )
    folder = _find_loaded_folder(situation)
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


def _find_carrier(situation: Situation) -> tuple[str, bool, bool]:
    """The distribution with TensorRT's libraries, as a requirement; whether TensorRT came from
    pip; whether that distribution is installed."""
    names = situation.distributions
    for name in names:
        # Not `name` itself: for 8.6 that is `tensorrt`, which may be a Debian package.
        has = {part: _is_installed(name + part) for part in ("-libs", "-bindings")}
        if any(has.values()):
            return f"{name}-libs=={situation.version}", True, has["-libs"]
    return " or ".join(f"{name}-libs" for name in names[:2]), False, False


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _find_loaded_folder(situation: Situation) -> str | None:
    """Where this process has loaded TensorRT's main library from."""
    try:
        maps = _MAPS.read_text(errors="replace")
    except OSError:
        return None
    found = re.search(rf"(/\S.*)/{situation.library}\.so", maps)
    return found[1] if found else None


# The driver and the GPU


def _advise_driver(found: re.Match[str], situation: Situation) -> str:
    return (
        "There is no NVIDIA driver, or one for an older CUDA than this TensorRT was made for: "
        "check that `nvidia-smi` works, and which CUDA version it shows. Update the driver, "
        "install a TensorRT for its CUDA version, or start the container with --gpus=all"
    )


def _advise_no_gpu(found: re.Match[str], situation: Situation) -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = "not set" if visible is None else f"'{visible}'"
    return (
        f"The driver shows no GPU to this process. CUDA_VISIBLE_DEVICES is {shown}; does "
        "`nvidia-smi` list one? A container must be started with --gpus=all"
    )


def _advise_busy(found: re.Match[str], situation: Situation) -> str:
    return (
        "Another process uses the GPU exclusively, or its compute mode allows no process: "
        "`nvidia-smi` shows both"
    )


def _advise_not_ready(found: re.Match[str], situation: Situation) -> str:
    return (
        "The GPUs are not ready. With NVSwitch they need nvidia-fabricmanager, of the driver's "
        "version: `systemctl status nvidia-fabricmanager` says whether it runs"
    )


def _advise_mismatch(found: re.Match[str], situation: Situation) -> str:
    return (
        "The driver's kernel module and its libraries have different versions, or a CUDA "
        "compatibility package is in the way: restart the machine, which loads the new module, or "
        "take CUDA's compat folder off LD_LIBRARY_PATH"
    )


def _advise_generation(found: re.Match[str], situation: Situation) -> str:
    return (
        f"TensorRT {situation.version} was not made for this GPU. What runs on which: "
        f"{situation.choices}"
    )


def _advise_turing(found: re.Match[str], situation: Situation) -> str:
    if not situation.builds_for_list:
        return ""
    return (
        "For Turing (7.5) convert the model to fp16, or build for newer GPUs only: "
        "--compute-capabilities 8.6,8.9 (with CK --env.TENSORRT_COMPUTE_CAPABILITIES=8.6,8.9)"
    )


def _advise_other_plan(found: re.Match[str], situation: Situation) -> str:
    return "The plan was built by another version or for another kind of GPU: build it again here"


# Memory and kernels


def _advise_memory(found: re.Match[str], situation: Situation) -> str:
    free = "end the other processes on the GPU (`nvidia-smi` lists them)"
    if not situation.building:
        return f"The GPU has not enough memory: {free}, or use a smaller maxbatch"
    return (
        f"The GPU has not enough memory to build this: {free}, use a smaller maxbatch, or limit "
        "what a layer may use (--workspace-mib; with CK --env.TENSORRT_WORKSPACE_MIB=1024)"
    )


def _advise_workspace(found: re.Match[str], situation: Situation) -> str:
    return (
        f"No kernel for node {_name_node(found)} fits the workspace: raise --workspace-mib (with "
        "CK --env.TENSORRT_WORKSPACE_MIB), or leave it out to allow all of the GPU's memory"
    )


def _advise_kernel(found: re.Match[str], situation: Situation) -> str:
    return (
        f"TensorRT {situation.version} has no kernel for node {_name_node(found)} with these types "
        "on this GPU: convert the model to another precision, or change that node"
    )


def _name_node(found: re.Match[str]) -> str:
    return found["node"].strip().removesuffix(".")


_NO_KERNEL = re.compile(
    r"[Cc]ould not find any implementation for node (?P<node>.+?)(?= due to|,|\.\s|\.?\)*$)"
)
_SKIPPED = re.compile(r"insufficient memory|[Mm]emory is insufficient|out of memory", re.IGNORECASE)
_LIBRARY = r"(?P<library>lib[\w.+-]*\.so[\w.]*?)"

# A message, and what describes what to do. The first that matches decides.
CAUSES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], Situation], str]], ...] = tuple(
    (re.compile(pattern) if isinstance(pattern, str) else pattern, describe)
    for pattern, describe in (
        (rf"{_LIBRARY}:? cannot open shared object file", _advise_library),
        (
            rf"(?:[Uu]nable to|[Cc]ould not|[Ff]ailed to|[Cc]annot) (?:load|find|open)"
            rf"(?: library)?:? {_LIBRARY}(?=[.:,;)]*(?:\s|$))",
            _advise_library,
        ),
        (r"driver version is insufficient|initialization failure with error: 35\b", _advise_driver),
        (r"no CUDA-capable device|initialization failure with error: 100\b", _advise_no_gpu),
        (r"devices? (?:is/are|are|is) busy|failure with error: 46\b", _advise_busy),
        (r"system not yet initialized|failure with error: 802\b", _advise_not_ready),
        (
            r"driver mismatch|unsupported display driver|[Ff]orward compatib"
            r"|failure with error: 80[34]\b",
            _advise_mismatch,
        ),
        (
            r"SM \d+ is not supported|Unsupported SM|no kernel image is available"
            r"|cannot run on this GPU",
            _advise_generation,
        ),
        (r"Turing", _advise_turing),
        (r"incompatible device|not compatible with this version of TensorRT", _advise_other_plan),
        (
            r"OutOfMemory|[Oo]ut of memory|ran out of memory|[Ii]nsufficient memory"
            r"|Requested amount of (?:GPU )?memory|failure with error: 2\b",
            _advise_memory,
        ),
        (rf"{_NO_KERNEL.pattern}(?=.*workspace)", _advise_workspace),
        (_NO_KERNEL, _advise_kernel),
    )
)
