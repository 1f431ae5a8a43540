"""A Python library: what the interpreter has already, or else pip's into a folder of its own.

`PIP_REQUIREMENT` is what pip would be asked for. `PIP_ALTERNATIVES` (optional, separated by spaces)
are requirements by which other distributions of the same library pass for it.
"""

import os
import subprocess

# Prints the version of the first requirement that is met, else an empty line and what it found.
PROBE = """
import importlib.metadata, sys
try:
    from packaging.requirements import Requirement
except ImportError:
    from pip._vendor.packaging.requirements import Requirement
unfit = ""
for text in sys.argv[1:]:
    wanted = Requirement(text)
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        continue
    if wanted.specifier.contains(version, prereleases=True):
        print(version)
        break
    unfit = unfit or f"{wanted.name} {version}"
else:
    print()
    print(unfit)
"""


def setup(i):
    python = i["deps"]["python"]["dict"]["customize"]["full_path"]
    requirement = i["new_env"]["PIP_REQUIREMENT"]
    accepted = [requirement, *i["new_env"].get("PIP_ALTERNATIVES", "").split()]
    site = os.path.join(i["install_path"], "site")
    os.makedirs(site, exist_ok=True)

    version, unfit = probe(python, accepted, os.environ)
    if not version:
        if unfit:
            print(f"{python} has {unfit}, which is not {requirement}: pip installs another beside")
        command = [python, "-m", "pip", "install", "--upgrade", "--target", site, requirement]
        code = subprocess.call(command)
        if code:
            return {"return": 1, "error": f"`{' '.join(command)}` ended with exit code {code}"}
        version, _ = probe(python, accepted, dict(os.environ, PYTHONPATH=site))
    i["customize"]["version"] = version
    return {"return": 0}


def probe(python, accepted, environment):
    """(version of the first requirement that is met or '', a distribution that is too old or '')"""
    lines = subprocess.check_output([python, "-c", PROBE, *accepted], env=environment, text=True)
    version, *unfit = lines.splitlines()
    return version, "".join(unfit)
