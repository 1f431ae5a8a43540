"""Questions to nvidia-smi, and its answers as rows of text."""

from __future__ import annotations

import math
import shutil
import subprocess

NVIDIA_SMI = "nvidia-smi"
AS_ROWS = "--format=csv,noheader,nounits"
# It takes seconds where the driver has to be loaded first.
_TIMEOUT_S = 10


def query_nvidia_smi(*arguments: str) -> list[list[str]] | None:
    """The rows of its answer; None where there is no nvidia-smi or it does not work."""
    if shutil.which(NVIDIA_SMI) is None:
        return None
    try:
        process = subprocess.run(
            [NVIDIA_SMI, *arguments, AS_ROWS],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if process.returncode else parse_rows(process.stdout)


def parse_rows(output: bytes) -> list[list[str]]:
    """The cells of each line, without the blanks around them."""
    lines = output.decode(errors="replace").splitlines()
    return [[cell.strip() for cell in line.split(",")] for line in lines]


def parse_number(text: str) -> float | None:
    """A figure of nvidia-smi; None for `[N/A]` and its like."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
