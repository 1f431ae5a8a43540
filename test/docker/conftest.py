"""Fixtures of the tests that build images and run containers (`make test-containers`)."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

CPU = "image-classification-onnx-loadgen-py.cpu"
TENSORRT = "image-classification-tensorrt-loadgen-py.tensorrt-11"
EXPERIMENTS = "/home/dvdt/CK_REPOS/local/experiment"

# What NVIDIA's base has, as far as a build looks at it: a compiler, and TensorRT and here pycuda,
# which else is compiled against CUDA, among the packages of its Python. Nothing in it computes.
STAND_IN = """
    ARG BASE_IMAGE
    FROM ${BASE_IMAGE}
    RUN apt-get update && apt-get install -y --no-install-recommends python3 \\
     && for name in g++ python3-dev; do \\
          mkdir -p /tmp/$name/DEBIAN && printf 'Package: %s\\nVersion: 99\\nArchitecture: all\\n\
Maintainer: none\\nDescription: stand-in\\n' $name >/tmp/$name/DEBIAN/control \\
          && dpkg-deb --build /tmp/$name && dpkg --install /tmp/$name.deb || exit 1; \\
        done \\
     && cd /usr/lib/python3/dist-packages \\
     && for name in tensorrt-11.2.1 pycuda-@pycuda@; do \\
          mkdir $name.dist-info ${name%-*} \\
          && printf 'Metadata-Version: 2.1\\nName: %s\\nVersion: %s\\n' ${name%-*} ${name#*-} \\
            >$name.dist-info/METADATA \\
          && echo "__version__ = '${name#*-}'" >${name%-*}/__init__.py || exit 1; \\
        done
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the container tests out unless -m asks for them: what -m says else does not matter."""
    if "containers" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("containers")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@dataclass(frozen=True)
class Image:
    """An image that was built, with what the build printed."""

    name: str
    log: str
    env_list: Path

    def run(
        self,
        *command: str,
        user: int = 1000,
        flags: tuple[str, ...] = (),
        env_file: bool = True,
        code: int = 0,
    ) -> subprocess.CompletedProcess[str]:
        """`docker run` as a user of the host whom the image does not know, in group 1500."""
        process = run_docker(
            *("run", "--rm", *os.environ.get("DOCKER_RUN_FLAGS", "").split()),
            *(f"--user={user}:1500", *flags),
            *(("--env-file", str(self.env_list)) if env_file else ()),
            *(f"ctuning/{self.name}", *command),
        )
        printed = f"{process.stdout[-8000:]}\n--- stderr\n{process.stderr[-8000:]}"
        assert process.returncode == code, f"{command}: {process.returncode}\n{printed}"
        return process


def run_docker(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], input=text, capture_output=True, text=True, timeout=600
    )


def build(ck, name: str, base: str | None) -> Image:
    """`ck build docker:name`, on another base than the Dockerfile's where one is given."""
    flags = [f"--cmd=--build-arg BASE_IMAGE={base}"] if base else []
    process = ck("build", f"docker:{name}", *flags, timeout=900)
    return Image(name, process.stdout + process.stderr, ck.root / "docker" / name / "env.list")


@pytest.fixture(scope="session")
def base() -> str | None:
    """The base that .ci/with-docker.sh made, None where the Dockerfiles' own can be had."""
    return os.environ.get("BASE_IMAGE")


@pytest.fixture(scope="session")
def cpu(ck, base) -> Image:
    return build(ck, CPU, base)


@pytest.fixture(scope="session")
def tensorrt(ck, base, repository) -> Image:
    """The image of TensorRT 11 on a stand-in for NVIDIA's base."""
    stand_in = "localhost/tensorrt:stand-in"
    arguments = ["--build-arg", f"BASE_IMAGE={base or 'debian:12.12-slim'}", "-t", stand_in, "-"]
    lock = (repository / "locks" / "cuda-13.txt").read_text()
    (pycuda,) = re.findall(r"^pycuda==(\S+)", lock, re.MULTILINE)
    text = textwrap.dedent(STAND_IN).replace("@pycuda@", pycuda)
    process = run_docker("build", *arguments, text=text)
    assert process.returncode == 0, process.stdout + process.stderr
    return build(ck, TENSORRT, stand_in)


@pytest.fixture
def results(tmp_path) -> Path:
    """A folder of the host that group 1500 may write, as the README sets it up."""
    folder = tmp_path / "experiment"
    folder.mkdir()
    os.chown(folder, -1, 1500)
    folder.chmod(0o2775)
    return folder
