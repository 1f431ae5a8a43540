"""The tests on every supported Python that is on this machine: `make test-all`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nox

VERSIONS = ["3.10", "3.11", "3.12", "3.13"]


def find_python(version: str) -> str | None:
    """An interpreter of this version that starts; pyenv's also where it is not switched on."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python")]
    for python in filter(None, found):
        if not subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
            return str(python)
    return None


@nox.session(python=False)
@nox.parametrize("version", VERSIONS, ids=VERSIONS)
def tests(session: nox.Session, version: str) -> None:
    python = find_python(version)
    if python is None:
        session.skip(f"NOT RUN: no Python {version} here")
    folder = Path(".nox") / version
    session.run(python, "-m", "venv", "--clear", str(folder))
    python = str(folder.resolve() / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-q", "install", "--no-compile"]
    pip.append("--require-hashes")
    session.run(*pip, "-r", "locks/run.txt")
    session.run(*pip, "--no-build-isolation", "-r", "locks/ck.txt", "-r", "locks/test.txt")
    session.run(python, "-m", "pytest", *session.posargs)
