"""Installs a package by running the Python steps that its meta.json lists.

A package declares, under `customize`:

  "copy": files of the package's folder that go into the installation folder,
  "steps": argument lists for the interpreter of the `python` dep, run in order,
  "required": values that the user must give, each with what to say where one is missing, and
  "resolve": what resolves its `skipped` deps, one of plans.PREPARATIONS.

In an argument, `${NAME}` is a value of the installation environment (`--env.NAME=...`, a
variation, `install_env`), `${INSTALL_DIR}`, `${PACKAGE_DIR}`, or `${DEP_KEY}`: the path of
the dep KEY. A nested list is optional: it is left out when one of its values is empty.
Arguments go to the process as they are; no shell reads them.
"""

import os
import re
import shutil
import string
import subprocess
import sys

from ck_mlperf.catalog import kernel


def expand(step, values):
    """Fill in one step's arguments. Raises KeyError for a name that has no value."""
    arguments = []
    for argument in step:
        if isinstance(argument, str):
            arguments.append(string.Template(argument).substitute(values))
        elif all(
            values.get(name) for part in argument for name in re.findall(r"\$\{(\w+)\}", part)
        ):
            arguments += expand(argument, values)
    return arguments


def pre_path(i):
    """Resolve what CK cannot: it knows the tags now, and has not named the folder yet."""
    name = i["customize"].get("resolve")
    if name is None:
        return {"return": 0}
    from ck_mlperf.catalog import plans

    return {"return": 0, "install_env": plans.PREPARATIONS[name](i)}


def setup(i):
    folder = i["install_path"]
    package = i["path_original_package"]
    customize = i["customize"]
    values = {name: str(value) for name, value in i["new_env"].items()}
    values.update(INSTALL_DIR=folder, PACKAGE_DIR=package)
    for key, dep in i["deps"].items():
        if not dep.get("dict"):  # skipped, and not needed for this
            continue
        values["DEP_" + key.upper().replace("-", "_")] = kernel.dep_path(dep)
    for name, message in customize.get("required", {}).items():
        if not values.get(name):
            kernel.fail(f"{os.path.basename(package)}: {message}")
    python, environment = kernel.dep_python(i["deps"])
    try:
        os.makedirs(folder, exist_ok=True)
        for name in customize.get("copy", []):
            shutil.copyfile(os.path.join(package, name), os.path.join(folder, name))
    except OSError as error:
        kernel.fail(
            f"{error}; CK installs into $CK_TOOLS: make it writable, or set it to another folder"
        )
    for step in customize.get("steps", []):
        sys.stdout.flush()
        code = subprocess.call([python, *expand(step, values)], env=environment, cwd=folder)
        if code:
            # The step has said on stderr what is wrong.
            raise SystemExit(code if code > 0 else 1)
    return {"return": 0}
