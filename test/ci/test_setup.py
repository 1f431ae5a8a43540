"""What `make` says where something of the system is missing, before it changes anything."""

from __future__ import annotations

import os
import re
import shutil
import signal
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


# In place of a Python: it makes "virtual environments" that hold itself, and pip takes as long as
# there is a file `wait`. $LOG gets a line for each of both; `stop` in its name kills the caller.
STUB = """#!/bin/sh
case $1$2 in
    -c*) echo 3.11.0 ;;
    -mvenv) echo venv >>"$LOG"; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    -mpip)
        echo pip >>"$LOG"
        [ ! -e stop ] || kill -9 $PPID
        while [ -e wait ]; do sleep 0.02; done ;;
    *) cat >/dev/null ;;
esac
"""


class Installer:
    """Installs by a stand-in for Python in a checkout, and notes the steps of it."""

    def __init__(self, folder: Path, tmp_path: Path) -> None:
        self.folder, self.log, self.python = folder, tmp_path / "log", tmp_path / "python"
        self.python.write_text(STUB)
        self.python.chmod(0o755)
        (folder / "locks").mkdir()
        needed = ("locks/run.txt", "locks/ck.txt", "pyproject.toml")
        for name in needed:
            (folder / name).touch()
        for file in (*needed, ".ci/setup.sh"):
            os.utime(folder / file, (1, 1))

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["sh", ".ci/setup.sh", "install"],
            cwd=self.folder,
            env=os.environ | {"PYTHON": str(self.python), "LOG": str(self.log)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self) -> int:
        process = self.start()
        process.communicate()
        return process.returncode

    def read_log(self) -> list[str]:
        return self.log.read_text().split()


@pytest.fixture
def installer(checkout, tmp_path) -> Installer:
    return Installer(checkout(), tmp_path)


def test_an_installation_that_was_interrupted_is_made_anew(installer):
    stop = installer.folder / "stop"
    stop.touch()
    assert installer.run() == -signal.SIGKILL
    assert installer.read_log() == ["venv", "pip"]
    stop.unlink()
    assert installer.run() == 0
    assert installer.read_log() == ["venv", "pip", "venv", "pip", "pip", "pip"]
    assert installer.run() == 0  # nothing to do
    assert len(installer.read_log()) == 6


def test_an_interrupted_upgrade_is_made_anew_and_keeps_experiments(installer):
    experiment = installer.folder / ".ck/repos/local/experiment/mine"
    assert installer.run() == 0
    experiment.mkdir(parents=True)
    os.utime(installer.folder / ".ck/installed", (0, 0))  # locks/run.txt is newer
    (installer.folder / "stop").touch()
    assert installer.run() == -signal.SIGKILL
    (installer.folder / "stop").unlink()
    assert installer.run() == 0
    assert installer.read_log()[4:] == ["pip", "venv", "pip", "pip", "pip"]
    assert experiment.is_dir()


def test_two_at_once_install_once(installer):
    wait = installer.folder / "wait"
    wait.touch()
    with installer.start() as first:
        while not (installer.folder / ".venv/bin/python").exists():
            assert first.poll() is None
        with installer.start() as second:
            assert "Waiting for another make" in second.stderr.readline()
            wait.unlink()
    assert (first.returncode, second.returncode) == (0, 0)
    assert installer.read_log() == ["venv", "pip", "pip", "pip"]


def test_help_names_what_a_contributor_is_told_to_make(repository):
    printed = subprocess.run(
        ["make", "help"], cwd=repository, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    listed = {line.split()[0] for line in printed.splitlines()}
    told = set(re.findall(r"`make ([a-z-]+)", (repository / "CONTRIBUTING.md").read_text()))
    assert "test" in told
    assert {name for name in told if not name.startswith("bench-")} <= listed
    assert {"run", "ck-env", "help", "bench-%"} <= listed
    assert max(map(len, printed.splitlines())) <= 100
