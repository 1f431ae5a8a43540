"""Installs a package by running the Python steps that its meta.json lists.

A package declares, under `customize`:

  "copy": files of the package's folder that go into the installation folder,
  "steps": argument lists for the interpreter of the `python` dep, run in order,
  "required": values that the user must give, each with what to say where one is missing, and
  "resolve": what resolves its `skipped` deps, one of STEPS.

In an argument, `${NAME}` is a value of the installation environment (`--env.NAME=...`, a
variation, `install_env`), `${INSTALL_DIR}`, `${PACKAGE_DIR}`, or `${DEP_KEY}`: the path of
the dep KEY. A nested list is optional: it is left out when one of its values is empty.
Arguments go to the process as they are; no shell reads them.
"""

from __future__ import annotations

import os
import re
import shutil
import string
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TypedDict

from ck_mlperf.catalog.conversion import Conversion
from ck_mlperf.catalog.images import FromOriginals, Preprocessing
from ck_mlperf.catalog.kernel import Dep, dep_python
from ck_mlperf.catalog.plan import PlanChain
from ck_mlperf.catalog.step import Installation, Step
from ck_mlperf.common.errors import UserError

STEPS: Mapping[str, type[Step]] = {
    "conversion": Conversion,
    "images": Preprocessing,
    "originals": FromOriginals,
    "plan": PlanChain,
}

Argument = str | list[str]


class Recipe(TypedDict, total=False):
    """What a package's `customize` says of its installation."""

    copy: list[str]
    steps: list[list[Argument]]
    required: dict[str, str]
    resolve: str


def resolve(installation: Installation, recipe: Recipe) -> dict[str, str]:
    """Resolve what CK cannot. Returns values for the package's steps."""
    name = recipe.get("resolve")
    return STEPS[name].of(installation).prepare(installation) if name else {}


def run_steps(
    package: str,
    folder: str,
    recipe: Recipe,
    environment: Mapping[str, object],
    deps: Mapping[str, Dep],
) -> None:
    """Install the package in the folder `package` into `folder`.

    environment: the installation's. Raises UserError; ends the command with the exit code of a step
    that fails, which has said on stderr what is wrong.
    """
    values = {name: str(value) for name, value in environment.items()}
    values.update(INSTALL_DIR=folder, PACKAGE_DIR=package)
    for key, dep in deps.items():
        if dep.entry:  # else it is skipped, and not needed for this
            values["DEP_" + key.upper().replace("-", "_")] = dep.path
    for name, message in recipe.get("required", {}).items():
        if not values.get(name):
            raise UserError(f"{os.path.basename(package)}: {message}")
    try:
        os.makedirs(folder, exist_ok=True)
        for name in recipe.get("copy", []):
            shutil.copyfile(os.path.join(package, name), os.path.join(folder, name))
    except OSError as error:
        raise UserError(
            f"{error}; CK installs into $CK_TOOLS: make it writable, or set it to another folder"
        ) from error
    python, process_environment = dep_python(deps)
    for step in recipe.get("steps", []):
        sys.stdout.flush()
        command = [python, *expand(step, values)]
        code = subprocess.call(command, env=process_environment, cwd=folder)
        if code:
            raise SystemExit(code if code > 0 else 1)


def expand(step: Sequence[Argument], values: Mapping[str, str]) -> list[str]:
    """Fill in one step's arguments. Raises KeyError for a name that has no value."""
    arguments: list[str] = []
    for argument in step:
        if isinstance(argument, str):
            arguments.append(string.Template(argument).substitute(values))
        elif all(
            values.get(name) for part in argument for name in re.findall(r"\$\{(\w+)\}", part)
        ):
            arguments += expand(argument, values)
    return arguments
