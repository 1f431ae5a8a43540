"""Which of NVIDIA's libraries this process has loaded, and their versions as they say them."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_OURS = re.compile(
    r"lib(nv(infer|onnxparser|parsers|rtc|JitLink|ptxcompiler)|tensorrt|cud(a|art|nn)|cublas"
    r"|nvidia-)[\w.-]*\.so[\w.]*"
)


def list_libraries() -> list[str]:
    """Their file names, which may have the version, with what they answer: 'libcudnn.so.8 (8.9.4)'.

    No folders: they would tell whose machine this is.
    """
    try:
        maps = _MAPS.read_text(errors="replace")
    except OSError:
        return []
    paths = {Path(line[line.index("/") :]) for line in maps.splitlines() if "/" in line}
    found = {path.name: path for path in paths if _OURS.fullmatch(path.name)}
    return [_describe(found[name]) for name in sorted(found)]


def _describe(path: Path) -> str:
    for stem, symbol, read in _VERSIONS:
        if path.name.startswith(f"{stem}.so"):
            try:
                version = read(ctypes.CDLL(str(path)), symbol)
            except (OSError, AttributeError):
                break
            return f"{path.name} ({version})" if version else path.name
    return path.name


def _ask_returned(library: ctypes.CDLL, symbol: str) -> int:
    function = getattr(library, symbol)
    function.restype = ctypes.c_uint  # some return a size_t; the versions fit
    return int(function())


def _read_tensorrt(library: ctypes.CDLL, symbol: str) -> str:
    """8601 is 8.6.1, 101501 is 10.15.1."""
    number = _ask_returned(library, symbol)
    if number >= 10_000:
        return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"
    return f"{number // 1000}.{number // 100 % 10}.{number % 100}"


def _read_cudnn(library: ctypes.CDLL, symbol: str) -> str:
    """8904 is 8.9.4, 90300 is 9.3.0."""
    number = _ask_returned(library, symbol)
    scale = 10_000 if number >= 10_000 else 1000
    return f"{number // scale}.{number % scale // 100}.{number % 100}"


def _read_cublas(library: ctypes.CDLL, symbol: str) -> str:
    """120103 is 12.1.3; since 13 with a digit more."""
    number = _ask_returned(library, symbol)
    return (
        f"{number // 10_000}.{number // 100 % 100}.{number % 100}"
        if number < 10**6
        else str(number)
    )


def _read_runtime(library: ctypes.CDLL, symbol: str) -> str:
    """12080 is CUDA 12.8."""
    version = ctypes.c_int()
    if getattr(library, symbol)(ctypes.byref(version)):
        return ""
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _read_pair(library: ctypes.CDLL, symbol: str) -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    if getattr(library, symbol)(ctypes.byref(major), ctypes.byref(minor)):
        return ""
    return f"{major.value}.{minor.value}"


_VERSIONS: tuple[tuple[str, str, Callable[[ctypes.CDLL, str], str]], ...] = (
    ("libnvinfer", "getInferLibVersion", _read_tensorrt),
    ("libcudnn", "cudnnGetVersion", _read_cudnn),
    ("libcublasLt", "cublasLtGetVersion", _read_cublas),
    ("libcudart", "cudaRuntimeGetVersion", _read_runtime),
    ("libcuda", "cuDriverGetVersion", _read_runtime),
    ("libnvrtc", "nvrtcVersion", _read_pair),
)
