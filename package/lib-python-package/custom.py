"""A Python library: what the interpreter has already, or else pip's into a folder of its own.

`PIP_REQUIREMENT` is what pip would be asked for. `PIP_ALTERNATIVES` (optional, separated by spaces)
are requirements by which other distributions of the same library pass for it. `PIP_BY_CUDA`
(optional, the same) are distributions by CUDA's major version, `NAME-cu13...`, which pip is asked
for before, those that the driver runs; without a driver none of them. `PIP_NOTE` (optional) is said
where pip gets nothing.
"""

import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))

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
    values = i["new_env"]
    requirement = values["PIP_REQUIREMENT"]
    by_cuda = values.get("PIP_BY_CUDA", "").split()
    accepted = [*by_cuda, requirement, *values.get("PIP_ALTERNATIVES", "").split()]
    accepted = list(dict.fromkeys(accepted))
    site = os.path.join(i["install_path"], "site")
    os.makedirs(site, exist_ok=True)

    version, unfit = probe(python, accepted, os.environ)
    if not version:
        if unfit:
            print(f"{python} has {unfit}, which is not {requirement}: pip installs another beside")
        error = install(python, site, [*choose_by_cuda(by_cuda), requirement], accepted)
        if error:
            note = values.get("PIP_NOTE")
            return {"return": 1, "error": f"{error}. {note}" if note else error}
        version, _ = probe(python, accepted, dict(os.environ, PYTHONPATH=site))
    i["customize"]["version"] = version
    return {"return": 0}


def choose_by_cuda(requirements):
    """Those of the requirements whose CUDA the driver runs, in their order."""
    if not requirements:
        return []
    from ck_mlperf.machine.gpus import find_cuda_version

    found = find_cuda_version()
    if found is None:
        return []
    print(f"the driver is for CUDA {found[0]}.{found[1]}")
    return [text for text in requirements if int(re.search(r"-cu(\d+)", text)[1]) <= found[0]]


def install(python, site, wanted, accepted):
    """Have pip install the first that it can get. Returns what to say where it got none, or ''."""
    wanted = list(dict.fromkeys(wanted))
    for requirement in wanted:
        if requirement != wanted[0]:
            print(f"pip did not get it; trying {requirement}", flush=True)
        command = [python, "-m", "pip", "install", "--upgrade", "--target", site, requirement]
        code = subprocess.call(command)
        if not code:
            return ""
    error = f"`{' '.join(command)}` ended with exit code {code}"
    if len(wanted) > 1:
        error += f"; tried before: {' '.join(wanted[:-1])}"
    others = [requirement for requirement in accepted if requirement not in wanted]
    if others:
        error += f". What passes for it too, where {python} has it: {' '.join(others)}"
    return error


def probe(python, accepted, environment):
    """(version of the first requirement that is met or '', a distribution that is too old or '')"""
    lines = subprocess.check_output([python, "-c", PROBE, *accepted], env=environment, text=True)
    version, *unfit = lines.splitlines()
    return version, "".join(unfit)
