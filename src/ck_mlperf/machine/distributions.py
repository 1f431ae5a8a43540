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

from ck_mlperf.common.errors import UserError, run_main


def find_version(requirements: Sequence[str]) -> tuple[str | None, str | None]:
    """(version, unfit), as above. Raises UserError where there is nothing to compare versions with.

    That comes with pip, which would also be asked for what is missing.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:
        try:
            from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]
        except ImportError:
            raise UserError(
                f"{sys.executable} has no pip, which installs libraries: `{sys.executable} -m "
                "ensurepip`, or python3-pip of your distribution"
            ) from None

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
