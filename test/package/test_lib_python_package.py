"""Python libraries: the interpreter's own, or else pip's in a folder of CK's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import numpy
import pytest


def write_wheel(folder) -> None:
    """A distribution that nothing else has: tiny-ck-test 1.2."""
    info = "tiny_ck_test-1.2.dist-info"
    files = {
        "tiny_ck_test.py": "VALUE = 7\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny-ck-test\nVersion: 1.2\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / "tiny_ck_test-1.2-py3-none-any.whl", "w") as wheel:
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


def test_a_library_that_pip_cannot_get(ck, tmp_path):
    failed = ck("install", "package", "--tags=lib,python-package,tqdm", "--quiet",
                "--env.PIP_REQUIREMENT=no-such-library-here",
                code=None, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))  # fmt: skip
    assert failed.returncode != 0
    assert "no-such-library-here" in failed.stderr


@pytest.mark.slow
def test_a_run_in_a_python_that_has_nothing_but_ck(make_ck, tmp_path):
    """CK then installs every library into a folder of its own, and all of them are found."""
    python = tmp_path / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "-q", "--disable-pip-version-check", "install"]
    zombie_imp = ["zombie-imp"] if sys.version_info >= (3, 12) else []
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([*pip, "setuptools", "wheel", *zombie_imp], check=True)
    own = os.environ | {"CK_REPOS": str(tmp_path / "ck" / "repos")}
    subprocess.run([*pip, "--no-build-isolation", "ck==2.6.4"], check=True, env=own)
    (tmp_path / "ck").mkdir()
    ck = make_ck(tmp_path / "ck", python.parent)
    ck("run", "program:image-classification-tensorrt-loadgen-py", timeout=600)
    record = json.loads((ck.tmp / "record.json").read_text())
    assert record["accuracy"]["top1_percent"] >= 97
    sites = [path.name for path in ck.tools.glob("lib-python-package-*/site/onnxruntime")]
    assert sites == ["onnxruntime"]
