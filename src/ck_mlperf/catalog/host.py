"""The machine that converts and runs: which TensorRTs its interpreter finds, and its GPUs."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import json
import os
import subprocess
from collections.abc import Callable, Sequence

from ck_mlperf.catalog.kernel import SOURCE, Catalog
from ck_mlperf.common.errors import UserError
from ck_mlperf.machine.gpus import CUDA_LIBRARY, Gpu, find_gpus
from ck_mlperf.tensorrt.names import MODULE, RTX_CAPABILITIES, RTX_TAG, make_flavour_tag

# Asking may take a second, and a benchmark runs several times in one process.
find_gpus_once = functools.cache(find_gpus)


@dataclasses.dataclass(frozen=True)
class Tensorrt:
    """An installed TensorRT: the module that Python imports, and its version."""

    module: str
    version: str

    @property
    def tag(self) -> str:
        return make_flavour_tag(self.module, self.version)


@dataclasses.dataclass(frozen=True)
class Host:
    """What there is to build and to run plans with.

    installed: in the order in which the interpreter finds them.
    """

    installed: tuple[Tensorrt, ...]
    gpus: tuple[Gpu, ...]

    @property
    def flavours(self) -> set[str]:
        """The tags of the TensorRTs that are installed."""
        return {tensorrt.tag for tensorrt in self.installed}

    def find(self, flavour: str) -> Tensorrt | None:
        """The installed TensorRT of a flavour's tag; None without one."""
        return next((found for found in self.installed if found.tag == flavour), None)

    def choose_flavour(self, asked: str | None) -> str:
        """The flavour's tag: what was asked for, or else what is installed and runs on the GPU.

        'tensorrt' where none is installed and the GPU needs TensorRT itself, of any version.
        Raises UserError rather than choose among several, or take one that cannot run here.
        """
        if asked:
            return asked
        takes_rtx = not self.gpus or any(
            gpu.compute_capability in RTX_CAPABILITIES for gpu in self.gpus
        )
        able = self.flavours if takes_rtx else self.flavours - {RTX_TAG}
        if len(able) > 1:
            raise UserError(
                f"several versions of TensorRT are installed, {' and '.join(sorted(able))}: "
                "add one of these tags to say which"
            )
        if not able and RTX_TAG in self.flavours:
            names = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in self.gpus)
            raise UserError(
                f"TensorRT for RTX is installed and does not run on {names}. Install TensorRT "
                "itself, `ck install package --tags=lib,python-package,tensorrt` (it fetches its "
                "libraries from NVIDIA's package index); run the ONNX model with the tag "
                "device.cuda; or add the tag tensorrt-rtx to make a plan for another machine, with "
                "--env.TENSORRT_COMPUTE_CAPABILITIES=8.6,8.9"
            )
        if able:
            return min(able)
        return RTX_TAG if takes_rtx else MODULE


def survey_host(
    catalog: Catalog, python: str, find: Callable[[], list[Gpu]] = find_gpus_once
) -> Host:
    """Find out what there is, with one process of the interpreter that converts and runs.

    The answer is kept for the rest of this `ck` command, until CK has installed another TensorRT.
    find: finds the GPUs. Raises UserError where the GPUs cannot be asked for.
    """
    entries = [
        entry for tag in (MODULE, RTX_TAG) for entry in catalog.find({"lib", "python-package", tag})
    ]
    sites = tuple(sorted({entry.path for entry in entries}))
    return Host(_find_tensorrts(python, sites), tuple(find()))


def has_driver(find: Callable[[], list[Gpu]] = find_gpus_once) -> bool:
    """Whether there is a driver for a GPU, also where nothing names the GPU."""
    if find():
        return True
    try:
        ctypes.CDLL(CUDA_LIBRARY)
    except OSError:
        return False
    return True


def run_module(python: str, module: str, arguments: Sequence[str], site: str = "") -> str:
    """What `python -m ck_mlperf.MODULE` prints, run by an interpreter that may have no library.

    site: a folder with libraries to put on its path. Ends the `ck` command where it fails; it has
    said on stderr what is wrong.
    """
    path = os.pathsep.join(filter(None, [site, str(SOURCE), os.environ.get("PYTHONPATH")]))
    process = subprocess.run(
        [python, "-m", f"ck_mlperf.{module}", *arguments],
        env=dict(os.environ, PYTHONPATH=path),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if process.returncode:
        raise SystemExit(2)
    return process.stdout


@functools.cache
def _find_tensorrts(python: str, sites: tuple[str, ...]) -> tuple[Tensorrt, ...]:
    found = json.loads(run_module(python, "tensorrt.survey", sites))
    return tuple(Tensorrt(module, version) for _, module, version in found)
