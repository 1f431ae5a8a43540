"""CK's hooks around an installation: what they do is in ck_mlperf.catalog.install."""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog import install, options
from ck_mlperf.catalog.home import registering
from ck_mlperf.catalog.kernel import read_deps
from ck_mlperf.catalog.step import Installation


@registering
def pre_path(i: dict[str, Any]) -> dict[str, Any]:
    """CK knows the package's tags now, and has not named the folder yet."""
    installation = Installation(i)
    options.check_install(installation.catalog, sys.argv, installation.environment)
    return {"return": 0, "install_env": install.resolve(installation, i["customize"])}


@registering
def setup(i: dict[str, Any]) -> dict[str, Any]:
    """CK has made the folder's name, and the package is to be put there."""
    install.run_steps(
        package=i["path_original_package"],
        folder=i["install_path"],
        recipe=i["customize"],
        environment=i["new_env"],
        deps=read_deps(i["deps"]),
    )
    return {"return": 0}
