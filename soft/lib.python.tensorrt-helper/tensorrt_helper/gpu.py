"""Which NVIDIA GPUs this machine has, as the driver's own tool says."""

from __future__ import annotations

import dataclasses
import os
import subprocess

from imagenet_helper.errors import UserError

_QUERY = ("--query-gpu=index,uuid,name,compute_cap", "--format=csv,noheader")
_TIMEOUT_S = 60  # without the persistence daemon the driver may take seconds to wake up


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A kind of GPU: its name as the driver spells it, and its compute capability, '8.9'."""

    name: str
    compute_capability: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


def find_gpus() -> list[Gpu]:
    """The GPUs of this machine that CUDA_VISIBLE_DEVICES leaves, none twice; [] where none is.

    No nvidia-smi, no driver or no device count as none. Raises UserError where nvidia-smi is too
    old to know of compute capabilities, and where it does not answer.
    """
    try:
        process = subprocess.run(
            ["nvidia-smi", *_QUERY],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        return []
    except subprocess.TimeoutExpired:
        raise UserError(
            f"nvidia-smi did not answer in {_TIMEOUT_S} s. Is a GPU hung? See `dmesg`"
        ) from None
    except OSError as error:
        raise UserError(f"nvidia-smi cannot be run: {error.strerror or error}") from None
    if "is not a valid field" in process.stdout + process.stderr:
        raise UserError(
            "this nvidia-smi does not tell a GPU's compute capability. "
            "Install a driver of version 510 or newer"
        )
    if process.returncode:
        return []
    rows = [line.split(", ") for line in process.stdout.splitlines()]
    rows = [row for row in rows if len(row) >= 4]
    chosen = [row for row in rows if _is_visible(row[0], row[1])]
    gpus = [Gpu(", ".join(row[2:-1]).strip(), row[-1].strip()) for row in chosen]
    return list(dict.fromkeys(gpus))


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
