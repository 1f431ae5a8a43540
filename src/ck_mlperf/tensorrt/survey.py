"""Which TensorRTs an interpreter finds: the interpreter that runs them is asked.

    python -m ck_mlperf.tensorrt.survey [SITE ...]

SITE is a folder into which CK has installed one. Prints [[site, module, version], ...] as JSON;
site '' is Python's own path.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from ck_mlperf.common.errors import run_main
from ck_mlperf.tensorrt.api import find_version
from ck_mlperf.tensorrt.names import MODULES

Found = tuple[str, str, str]


def find_flavours(sites: Sequence[str]) -> list[Found]:
    """(site, module, version) of each TensorRT on Python's own path, site '', and in the sites."""
    path, found = list(sys.path), []
    try:
        for site in ["", *sites]:
            sys.path[:] = [site, *path] if site else path
            for name in MODULES:
                version = find_version(name)
                if version is not None and (not site or ("", name, version) not in found):
                    found.append((site, name, version))
    finally:
        sys.path[:] = path
    return found


def main() -> None:
    print(json.dumps(find_flavours(sys.argv[1:])))


if __name__ == "__main__":
    run_main(main)
