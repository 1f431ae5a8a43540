"""A Python library: what the interpreter has already, or else pip's into a folder of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from ck_mlperf.catalog.host import run_module
from ck_mlperf.common.errors import UserError
from ck_mlperf.machine.gpus import find_cuda_version


@dataclass(frozen=True)
class Library:
    """What is asked for.

    requirement: for pip. alternatives: requirements by which other distributions of the same
    library pass for it. by_cuda: distributions by CUDA's major version, `NAME-cu13...`, which pip
    is asked for before, those that the driver runs; without a driver none of them. note: what is
    said where pip gets nothing.
    """

    requirement: str
    alternatives: Sequence[str] = ()
    by_cuda: Sequence[str] = ()
    note: str = ""

    @property
    def accepted(self) -> list[str]:
        """All requirements that pass for it, those that are preferred first."""
        return list(dict.fromkeys([*self.by_cuda, self.requirement, *self.alternatives]))


def install_library(python: str, site: str, library: Library) -> str:
    """Let pip install the library into `site`, unless the interpreter has it. Returns its version.

    Raises UserError where pip cannot get it.
    """
    os.makedirs(site, exist_ok=True)
    version, unfit = _probe(python, library.accepted)
    if version:
        return version
    if unfit:
        print(
            f"{python} has {unfit}, which is not {library.requirement}: pip installs another beside"
        )
    wanted = list(dict.fromkeys([*_choose_by_cuda(library.by_cuda), library.requirement]))
    _run_pip(python, site, wanted, library)
    version, _ = _probe(python, library.accepted, site)
    if version is None:
        raise UserError(f"pip has put {library.requirement} into {site}, and it is not found there")
    return version


def _choose_by_cuda(requirements: Sequence[str]) -> list[str]:
    """Those of the requirements whose CUDA the driver runs, in their order."""
    found = find_cuda_version() if requirements else None
    if found is None:
        return []
    print(f"the driver is for CUDA {found[0]}.{found[1]}")
    return [text for text in requirements if _read_cuda(text) <= found[0]]


def _read_cuda(requirement: str) -> int:
    """The major version of CUDA in a requirement's name."""
    named = re.search(r"-cu(\d+)", requirement)
    if named is None:
        raise ValueError(f"{requirement} names no version of CUDA")
    return int(named[1])


def _run_pip(python: str, site: str, wanted: Sequence[str], library: Library) -> None:
    """Install the first of the requirements that pip can get."""
    command: list[str] = []
    code = 0
    for requirement in wanted:
        if command:
            print(f"pip did not get it; trying {requirement}", flush=True)
        command = [python, "-m", "pip", "install", "--upgrade", "--target", site, requirement]
        code = subprocess.call(command)
        if not code:
            return
    error = f"`{' '.join(command)}` ended with exit code {code}"
    if len(wanted) > 1:
        error += f"; tried before: {' '.join(wanted[:-1])}"
    others = [requirement for requirement in library.accepted if requirement not in wanted]
    if others:
        error += f". What passes for it too, where {python} has it: {' '.join(others)}"
    raise UserError(f"{error}. {library.note}" if library.note else error)


def _probe(
    python: str, requirements: Sequence[str], site: str = ""
) -> tuple[str | None, str | None]:
    """(version of the first requirement that is met, what is too old), each None without one.

    site: a folder to look into before the interpreter's own.
    """
    answer = json.loads(run_module(python, "machine.distributions", requirements, site))
    return answer["version"], answer["unfit"]
