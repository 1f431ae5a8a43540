"""Which of several requirements this interpreter meets with what is installed.

    python -m ck_mlperf.machine.distributions REQUIREMENT ...

Prints a JSON object. version: of the distribution that meets the first requirement that is met, or
null. unfit: 'NAME VERSION' of the first one that is installed and meets none, or null.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Sequence

from ck_mlperf.common.errors import run_main


def find_version(requirements: Sequence[str]) -> tuple[str | None, str | None]:
    """(version, unfit), as above."""
    try:
        from packaging.requirements import Requirement
    except ImportError:  # pip, which would install it, brings its own
        from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]

    unfit = None
    for requirement in map(Requirement, requirements):
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if requirement.specifier.contains(version, prereleases=True):
            return version, None
        unfit = unfit or f"{requirement.name} {version}"
    return None, unfit


def main() -> None:
    version, unfit = find_version(sys.argv[1:])
    print(json.dumps({"version": version, "unfit": unfit}))


if __name__ == "__main__":
    run_main(main)
