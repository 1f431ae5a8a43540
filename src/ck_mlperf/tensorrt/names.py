"""The names of TensorRT's flavours: the module that Python imports, the tag that CK knows.

'tensorrt' and 'tensorrt_rtx' are modules. 'tensorrt-8', 'tensorrt-10' and 'tensorrt-rtx' are tags:
of TensorRT itself the tag has the major version, without which no plan can be built or run.
"""

from __future__ import annotations

import re

MODULES = MODULE, RTX_MODULE = ("tensorrt", "tensorrt_rtx")
RTX_TAG = "tensorrt-rtx"
# TensorRT for RTX 1.7 builds for these: its enumeration ComputeCapability.
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")

_TAG = re.compile(r"tensorrt-(rtx|\d+)")


def is_flavour_tag(tag: str) -> bool:
    return _TAG.fullmatch(tag) is not None


def make_flavour_tag(module: str, version: str) -> str:
    """The tag of an installed TensorRT: 'tensorrt-10' of tensorrt 10.13.0."""
    return RTX_TAG if module == RTX_MODULE else f"tensorrt-{version.partition('.')[0]}"


def read_flavour_tag(tag: str) -> tuple[str, str | None]:
    """The module that a tag names, and the major version; None: any."""
    if tag == RTX_TAG:
        return RTX_MODULE, None
    return MODULE, tag.partition("-")[2] or None
