"""Compile the CUDA kernels of engines/ to PTX, which the driver turns into a GPU's own code.

    python tools/compile_kernels.py LIBRARY

LIBRARY: NVRTC 11.8, libnvrtc.so.11.2 of `pip install nvidia-cuda-nvrtc-cu11==11.8.89`. It is an old
one so that old drivers take its PTX (520 and newer), for compute capability 5.0 and newer, and it
needs no GPU. The PTX begins with the sha256 of the source, by which a test sees that they belong
together.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from pathlib import Path

ENGINES = Path(__file__).resolve().parent.parent / "src/ck_mlperf/loadgen/engines"
OPTIONS = (b"--gpu-architecture=compute_50",)


def compile_ptx(library: Path, source: bytes, name: str) -> str:
    """The PTX of a CUDA source. Ends the process with NVRTC's messages where it has an error."""
    nvrtc = ctypes.CDLL(str(library))
    program = ctypes.c_void_p()
    made = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, name.encode(), 0, None, None)
    options = (ctypes.c_char_p * len(OPTIONS))(*OPTIONS)
    failed = made or nvrtc.nvrtcCompileProgram(program, len(OPTIONS), options)
    reader = "ProgramLog" if failed else "PTX"
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{reader}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{reader}")(program, text)
    if failed:
        sys.exit(text.value.decode())
    return text.value.decode()


def main() -> None:
    for path in sorted(ENGINES.glob("*.cu")):
        source = path.read_bytes()
        ptx = compile_ptx(Path(sys.argv[1]).resolve(), source, path.name)
        head = f"// {path.name}, sha256 {hashlib.sha256(source).hexdigest()}\n"
        lines = [line.rstrip() for line in ptx.splitlines() if line.strip()]
        path.with_suffix(".ptx").write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
