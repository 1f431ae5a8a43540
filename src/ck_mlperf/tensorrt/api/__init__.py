"""One interface to every TensorRT. What differs by version is in this folder, and only here.

    interface.py     Flavour, Build, LoadedPlan, Context: what the rest of the code knows
    tensorrt_8.py    TensorRT 8.6
    tensorrt_10.py   TensorRT 10 and 11
    tensorrt_rtx.py  TensorRT for RTX
    bindings.py      NVIDIA's Python API, which all of them share; callbacks.py: what it calls

A family that comes later is one file that implements interface.py, and a place in FAMILIES. To
import all this takes the standard library alone: whether a plan can be reused depends on the
version only. docs/tensorrt.md says what each runs on.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

from ck_mlperf.common.errors import UserError
from ck_mlperf.tensorrt.api.interface import FLAVOURS, Flavour
from ck_mlperf.tensorrt.api.tensorrt_8 import TensorRt8
from ck_mlperf.tensorrt.api.tensorrt_10 import TensorRt10
from ck_mlperf.tensorrt.api.tensorrt_rtx import TensorRtForRtx
from ck_mlperf.tensorrt.causes import add_advice

# Newest first.
FAMILIES: tuple[type[Flavour], ...] = (TensorRt10, TensorRt8, TensorRtForRtx)


def load_flavour(name: str | None = None) -> Flavour:
    """The installed flavour of this name; without a name, the only one that is installed.

    Raises UserError if it is not installed, if several are and none was named, or if its version
    is not supported. Never another one than was asked for.
    """
    if name is None:
        found = [flavour for flavour in FLAVOURS if find_version(flavour) is not None]
        if len(found) != 1:
            what = " and ".join(found) + " are both" if found else "no TensorRT is"
            choices = "Get one: " + "; or ".join(FLAVOURS.values())
            advice = "Say which: --flavour tensorrt_rtx" if found else choices
            raise UserError(f"{what} installed for this Python. {advice}")
        name = found[0]
    if name not in FLAVOURS:
        raise UserError(f"flavour {name!r}: want {' or '.join(FLAVOURS)}")
    version = find_version(name)
    if version is None:
        raise UserError(f"{name} is not installed for this Python. Get it: {FLAVOURS[name]}")
    return make_flavour(name, version)


def make_flavour(name: str, version: str) -> Flavour:
    """A flavour of this version, installed or not. Raises UserError if it is not supported."""
    numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
    release = (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)
    families = [family for family in FAMILIES if family.name == name]
    for family in families:
        if family.takes(release):
            return family(version, release)
    raise UserError(
        f"{families[0].product} {version} is not supported: want 8.6, 10 or 11, or TensorRT for "
        f"RTX 1. Install another: {FLAVOURS[name]}"
    )


def find_version(name: str) -> str | None:
    """The version of an installed flavour, None if it is not installed; without importing it.

    It is what the module's own files assign to __version__: an installation may be a wheel, a
    Debian package or a folder on PYTHONPATH. A folder of type stubs alone is no installation.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    for path in (package / "__init__.py", package.parent / f"{name}_bindings" / "__init__.py"):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found = re.search(r"^__version__\s*=\s*[\"']([^\"']+)[\"']", text, re.MULTILINE)
        if found:
            return found[1]
    try:
        return str(importlib.import_module(name).__version__)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        newest = next(family for family in FAMILIES if family.name == name)
        reason = add_advice(str(error), [str(error)], [], newest("", (0, 0)))
        raise UserError(f"{name} is installed in {package} but does not load: {reason}") from error
