"""Python libraries: the interpreter's own, or else pip's in a folder of CK's."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy
import pytest


def write_wheel(folder, name: str = "tiny_ck_test", version: str = "1.2") -> None:
    """A distribution of one small module, by default one that nothing else has."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
    files = {
        f"{name}.py": "VALUE = 7\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)


def read_customize(ck, tags: str) -> dict:
    uid = ck("search", "env", f"--tags={tags}").stdout.strip().rpartition(":")[2]
    entry = ck.experiments.parent / "env" / uid / ".cm" / "meta.json"
    return json.loads(entry.read_text())["customize"]


def test_a_library_of_the_interpreter_is_not_installed_again(ck):
    ck("install", "package", "--tags=lib,python-package,numpy", "--quiet")
    assert read_customize(ck, "lib,python-package,numpy")["version"] == numpy.__version__
    assert not any((ck.tools / "lib-python-package-numpy" / "site").iterdir())


def test_a_library_that_is_not_there_is_installed_by_pip(ck, tmp_path):
    write_wheel(tmp_path)
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    install = ["install", "package:lib-python-package", "--tags=lib,python-package,tqdm",
               "--extra_tags=tiny", "--quiet"]  # fmt: skip
    ck(*install, "--env.PIP_REQUIREMENT=tiny-ck-test>=1", **offline)
    customize = read_customize(ck, "lib,python-package,tiny")
    assert customize["version"] == "1.2"
    assert (ck.tools / "lib-python-package-tiny-tqdm" / "site" / "tiny_ck_test.py").exists()
    ck("rm", "env:*", "--tags=tiny", "--force")


def test_a_library_of_the_interpreter_that_is_too_old(ck, tmp_path):
    write_wheel(tmp_path, "tqdm", "9999.0")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    printed = ck("install", "package:lib-python-package", "--tags=lib,python-package,tqdm",
                 "--extra_tags=newer", "--quiet", "--env.PIP_REQUIREMENT=tqdm>=9999",
                 **offline).stdout  # fmt: skip
    assert f"has tqdm {importlib.metadata.version('tqdm')}, which is not tqdm>=9999" in printed
    customize = read_customize(ck, "lib,python-package,newer")
    assert customize["version"] == "9999.0"
    assert (ck.tools / "lib-python-package-newer-tqdm" / "site" / "tqdm.py").exists()
    ck("rm", "env:*", "--tags=newer", "--force")


def test_another_distribution_of_the_same_library_passes_for_it(ck):
    """ONNX Runtime for GPUs runs on the CPU too; TensorRT has a distribution for each CUDA."""
    own = importlib.metadata.version("numpy")
    ck("install", "package:lib-python-package", "--tags=lib,python-package,tqdm",
       "--extra_tags=other", "--quiet", "--env.PIP_REQUIREMENT=tiny-ck-test>=1",
       "--env.PIP_ALTERNATIVES=no-such-library-here>=1 numpy>=1")  # fmt: skip
    customize = read_customize(ck, "lib,python-package,other")
    assert customize["version"] == own
    assert not any((ck.tools / "lib-python-package-other-tqdm" / "site").iterdir())
    ck("rm", "env:*", "--tags=other", "--force")


def test_tensorrt_is_known_by_its_version_too(ck, tmp_path):
    write_wheel(tmp_path, "tensorrt", "10.3.0")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    ck("install", "package", "--tags=lib,python-package,tensorrt", "--quiet", **offline)
    try:
        assert read_customize(ck, "lib,python-package,tensorrt,tensorrt-10")["version"] == "10.3.0"
        assert not ck("search", "env", "--tags=lib,python-package,tensorrt-8").stdout.strip()
        failed = ck("install", "package", "--tags=lib,python-package,tensorrt-8", "--quiet",
                    code=None, **offline)  # fmt: skip
        assert failed.returncode != 0
        assert "tensorrt<9,>=8.6" in failed.stderr or "tensorrt>=8.6,<9" in failed.stderr
    finally:
        ck("rm", "env:*", "--tags=lib,python-package,tensorrt", "--force")


def find_installed(ck) -> list[str]:
    """The distributions in the folder of tensorrt-10."""
    folder = ck.tools / "lib-python-package-tensorrt-10" / "site"
    return sorted(path.name.partition("-")[0] for path in folder.glob("*.dist-info"))


@pytest.fixture
def install_tensorrt(ck, tmp_path):
    """install_tensorrt(cuda, *distributions): tensorrt-10 out of those, on a driver for `cuda`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "libcuda.so.1").touch()  # the loader refuses it: nvidia-smi is asked

    def install(cuda: str | None, *names: str, code: int | None = 0):
        for name in names:
            write_wheel(tmp_path, name, "10.9.0")
        script = tmp_path / "bin" / "nvidia-smi"
        script.write_text(f"#!/bin/sh\necho '| CUDA Version: {cuda} |'\n" if cuda else "exit 9")
        script.chmod(0o755)
        return ck(
            "install", "package", "--tags=lib,python-package,tensorrt-10", "--quiet", code=code,
            PATH=f"{tmp_path / 'bin'}{os.pathsep}{ck.environment['PATH']}",
            LD_LIBRARY_PATH=str(tmp_path), PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path),
        )  # fmt: skip

    yield install
    ck("rm", "env:*", "--tags=lib,python-package,tensorrt", "--force", code=None)
    shutil.rmtree(ck.tools / "lib-python-package-tensorrt-10", ignore_errors=True)


ALL = ("tensorrt", "tensorrt_cu12", "tensorrt_cu13")


@pytest.mark.parametrize(
    ("cuda", "there", "taken"),
    [
        ("13.0", ALL, "tensorrt_cu13"),
        ("12.8", ALL, "tensorrt_cu12"),
        ("13.1", ("tensorrt", "tensorrt_cu12"), "tensorrt_cu12"),
        ("12.8", ("tensorrt", "tensorrt_cu13"), "tensorrt"),
        (None, ALL, "tensorrt"),
    ],
)
def test_the_drivers_cuda_chooses_tensorrt(install_tensorrt, ck, cuda, there, taken):
    install_tensorrt(cuda, *there)
    assert find_installed(ck) == [taken]
    assert read_customize(ck, "lib,python-package,tensorrt-10")["version"] == "10.9.0"


def test_what_was_tried_and_what_else_would_do(install_tensorrt):
    failed = install_tensorrt("12.8", code=None)
    assert failed.returncode != 0
    (line,) = [line for line in failed.stderr.splitlines() if "ended with exit code" in line]
    assert "tensorrt>=10,<11` ended" in line
    assert "tried before: tensorrt-cu12>=10,<11." in line
    assert "tensorrt-cu13>=10,<11 tensorrt-cu11>=10,<11" in line.partition("passes for it")[2]


def test_the_pythons_of_tensorrt_8_are_named(ck, tmp_path):
    failed = ck("install", "package", "--tags=lib,python-package,tensorrt-8", "--quiet",
                code=None, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))  # fmt: skip
    assert "TensorRT 8.6.1 is there for Python 3.8 to 3.11" in failed.stderr


def test_a_library_that_pip_cannot_get(ck, tmp_path):
    failed = ck("install", "package", "--tags=lib,python-package,tqdm", "--quiet",
                "--env.PIP_REQUIREMENT=no-such-library-here",
                code=None, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))  # fmt: skip
    assert failed.returncode != 0
    assert "no-such-library-here" in failed.stderr


@pytest.mark.slow
@pytest.mark.long
def test_a_run_in_a_python_that_has_nothing_but_ck(make_ck, tmp_path, repository):
    """CK then installs every library into a folder of its own, and all of them are found.

    What pip would download is linked from this Python instead.
    """
    python = tmp_path / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "-q", "--disable-pip-version-check", "install"]
    zombie_imp = ["zombie-imp"] if sys.version_info >= (3, 12) else []
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([*pip, "setuptools", "wheel", *zombie_imp], check=True)
    own = os.environ | {"CK_REPOS": str(tmp_path / "ck" / "repos")}
    subprocess.run([*pip, "--no-build-isolation", "ck==2.6.4"], check=True, env=own)
    (tmp_path / "ck").mkdir(exist_ok=True)  # building CK from its sdist runs it
    ck = make_ck(tmp_path / "ck", python.parent)
    links = {
        "PYTHONPATH": str(repository / "test/fakes/pip_of_links"),
        "PIP_LINKS_FROM": sys.executable,
    }
    ck("run", "program:image-classification-tensorrt-loadgen-py", timeout=600, **links)
    record = json.loads((ck.tmp / "record.json").read_text())
    assert record["accuracy"]["top1_percent"] >= 97
    sites = [path.name for path in ck.tools.glob("lib-python-package-*/site/onnxruntime")]
    assert sites == ["onnxruntime"]
