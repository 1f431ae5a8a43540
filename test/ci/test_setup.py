"""What `make` says where something of the system is missing, before it changes anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def checkout(repository, tmp_path):
    """As much of a checkout as .ci/setup.sh looks at first."""

    def make(name: str = "checkout") -> Path:
        folder = tmp_path / name
        (folder / ".ci").mkdir(parents=True)
        shutil.copy(repository / ".ci" / "setup.sh", folder / ".ci")
        return folder

    return make


def install(folder: Path, python: str = sys.executable, **environment: str):
    process = subprocess.run(
        ["sh", ".ci/setup.sh", "install"],
        cwd=folder,
        env=os.environ | {"PYTHON": python} | environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert sorted(os.listdir(folder)) == [".ci"]
    return process.stderr


def test_a_path_that_ck_cannot_carry(checkout):
    assert "move the checkout" in install(checkout("with space"))


def test_a_python_without_venv(checkout, tmp_path):
    (tmp_path / "ensurepip.py").write_text("raise ImportError")
    said = install(checkout(), PYTHONPATH=str(tmp_path))
    assert "sudo apt-get install python3-venv" in said


def test_a_python_of_another_version(checkout, tmp_path):
    old = tmp_path / "python"
    old.write_text(
        f"#!/bin/sh\n(echo 'import sys; sys.version_info = (3, 9, 2)'; cat) | {sys.executable} -\n"
    )
    old.chmod(0o755)
    assert "3.10 to 3.13 are supported" in install(checkout(), python=str(old))


def test_no_python_at_all(checkout):
    assert "no-such-python" in install(checkout(), python="no-such-python")
