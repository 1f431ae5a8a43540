"""A Python library: what the interpreter has already, or else pip's into a folder of its own."""

import os
import re
import subprocess

PROBE = """
import importlib.metadata, sys
try:
    print(importlib.metadata.version(sys.argv[1]))
except importlib.metadata.PackageNotFoundError:
    pass
"""


def setup(i):
    python = i["deps"]["python"]["dict"]["customize"]["full_path"]
    requirement = i["new_env"]["PIP_REQUIREMENT"]
    name = re.split("[<>=!~]", requirement)[0]
    site = os.path.join(i["install_path"], "site")
    os.makedirs(site, exist_ok=True)

    version = probe(python, name, os.environ)
    if not version:
        command = [python, "-m", "pip", "install", "--upgrade", "--target", site, requirement]
        code = subprocess.call(command)
        if code:
            return {"return": 1, "error": f"`{' '.join(command)}` ended with exit code {code}"}
        version = probe(python, name, dict(os.environ, PYTHONPATH=site))
    i["customize"]["version"] = version
    return {"return": 0}


def probe(python, name, environment):
    """The version of an installed distribution, '' if there is none."""
    return subprocess.check_output([python, "-c", PROBE, name], env=environment, text=True).strip()
