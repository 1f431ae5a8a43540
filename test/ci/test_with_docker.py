"""What .ci/with-docker.sh does where it need not, and where it cannot, make a place for images."""

from __future__ import annotations

import os
import subprocess

import pytest


@pytest.fixture
def run(repository, tmp_path):
    """The script, in an empty folder, with stand-ins for some programs of the system."""

    def run(command: list[str], **programs: str) -> subprocess.CompletedProcess[str]:
        for name, script in programs.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
        folder = tmp_path / "checkout"
        folder.mkdir()
        process = subprocess.run(
            ["sh", repository / ".ci" / "with-docker.sh", *command],
            cwd=folder,
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        assert not list(folder.iterdir())
        return process

    return run


def test_docker_that_works_is_taken(run):
    shown = "echo ${BASE_IMAGE-none} ${DOCKER_RUN_FLAGS-none}; exit 3"
    process = run(["sh", "-c", shown], docker="exit 0")
    assert (process.returncode, process.stdout) == (3, "none none\n")


def test_without_docker_for_a_user(run):
    process = run(["true"], docker="exit 1", id="[ $1 = -un ] && echo someone || echo 1000")
    assert process.returncode == 2
    assert process.stderr.startswith("error: Docker does not work here (docker info), and podman")
    assert "this is someone on " in process.stderr
