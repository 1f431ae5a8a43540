"""A CK home that an older commit of this repository has made.

Up to 2859bbc the library was five, each with a soft entry of its own. What was installed then has
noted where their files were. CK looks for these files before it takes such a thing as a dependency,
asks on the terminal whether to forget it, and fails where there is none.
"""

from __future__ import annotations

import os
import re
from typing import Any

from ck_mlperf.catalog.kernel import Catalog

_GONE = re.compile(r".*/soft/lib\.python\.(analyze|explore|imagenet|loadgen|tensorrt)-helper/.*")


def adopt_old_libraries(catalog: Catalog, library: str) -> None:
    """Let `library`, the file that ck_mlperf is registered by, stand for the five libraries."""
    for entry in catalog.find(()):
        if _replace(entry.meta, library):
            catalog.update(entry)


def _replace(meta: Any, library: str) -> bool:
    """Replace the paths that are gone, at any depth. Returns whether there were any."""
    if not isinstance(meta, dict):
        return False
    path = meta.get("full_path")
    is_gone = isinstance(path, str) and _GONE.fullmatch(path) and not os.path.exists(path)
    if is_gone:
        meta["full_path"] = library
    return any([is_gone, *(_replace(value, library) for value in meta.values())])
