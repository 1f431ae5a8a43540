"""locks/ fits the ranges of every requirement, and what installs takes nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ck_mlperf.loadgen import mlperf_conf
from ck_mlperf.loadgen.harness import native_build

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


def read_pins(repository: Path, *names: str) -> dict[str, list[str]]:
    """The versions that locks pin: {package: versions}."""
    pins: dict[str, list[str]] = {}
    for name in names:
        text = (repository / "locks" / f"{name}.txt").read_text()
        for package, version in re.findall(r"^([\w.-]+)==([\w.+!-]+)", text, re.MULTILINE):
            pins.setdefault(canonicalize_name(package), []).append(version)
    return pins


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A copy of what tools/lock.py reads."""
    (tmp_path / "tools").mkdir()
    shutil.copy(repository / "tools" / "lock.py", tmp_path / "tools")
    shutil.copytree(repository / "locks", tmp_path / "locks")
    for path in repository.glob("requirements*.txt"):
        shutil.copy(path, tmp_path)
    return tmp_path


def run_lock(folder: Path, option: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/lock.py", option],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_the_locks_fit_the_ranges(repository):
    process = run_lock(repository, "--check")
    assert (process.returncode, process.stdout) == (0, "")


@pytest.mark.parametrize("added", ["numpy>=99", "no-such-library>=1"])
@pytest.mark.parametrize("file", ["requirements.txt", "requirements-test.txt"])
def test_a_range_that_no_pin_fits(checkout, file, added):
    with (checkout / file).open("a") as requirements:
        requirements.write(f"{added}\n")
    process = run_lock(checkout, "--check")
    assert process.returncode == 1
    lines = [line for line in process.stdout.splitlines() if f": {added} on Python" in line]
    assert [line.split("Python ")[1][:4] for line in lines] == sorted(PYTHONS * 2)
    assert process.stdout.endswith("run: make lock\n")


def test_a_range_for_one_python(checkout):
    with (checkout / "requirements.txt").open("a") as requirements:
        requirements.write('onnx>=99; python_version < "3.11"\n')
    lines = run_lock(checkout, "--check").stdout.splitlines()
    assert len(lines) == 3
    assert all("on Python 3.10" in line for line in lines[:2])


@pytest.mark.parametrize(
    ("pattern", "change", "said"),
    [
        (r" \\\n    --hash=sha256:\w{64}", "", "ck has no exact version, or no sha256"),
        (r"==2\.6\.4", ">=2.6.4", "ck has no exact version, or no sha256"),
        (r"\Z", "ck==2.6.4 --hash=sha256:" + "0" * 64, "ck is pinned twice for Python 3.10"),
    ],
)
def test_a_lock_that_was_edited(checkout, pattern, change, said):
    path = checkout / "locks" / "ck.txt"
    before, entry, rest = path.read_text().partition("\nck==2.6.4")
    path.write_text(before + re.sub(pattern, change, entry + rest, count=1))
    process = run_lock(checkout, "--check")
    assert process.returncode == 1
    assert f"locks/ck.txt: {said}" in process.stdout


def test_a_lock_that_is_missing(checkout):
    (checkout / "locks" / "gpu.txt").unlink()
    assert "locks/gpu.txt: missing\n" in run_lock(checkout, "--check").stdout


def test_the_project_without_its_dependencies_has_them(repository):
    """It is installed with --no-deps."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    for extra, names in {"": ["run"], "commands": ["test"], "cluster": ["test"]}.items():
        wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
        pins = read_pins(repository, *names)
        for requirement in map(Requirement, wanted):
            versions = pins[canonicalize_name(requirement.name)]
            assert all(requirement.specifier.contains(version) for version in versions)


def test_what_is_installed_together_is_pinned_alike(repository):
    run = read_pins(repository, "run")
    for name in ("ck", "test", "cuda-12", "cuda-13"):
        for package, versions in read_pins(repository, name).items():
            assert set(versions) <= set(run.get(package, versions)), f"{name}: {package}"


def test_the_locks_are_complete(repository):
    """Here `make setup` installed them without pip's resolver."""
    pins = read_pins(repository, "run", "ck", "test")
    for package in pins:
        try:
            needed = importlib.metadata.requires(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another system or Python
        for requirement in map(Requirement, needed):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                versions = pins.get(canonicalize_name(requirement.name), [])
                assert any(map(requirement.specifier.contains, versions)), package


def test_loadgen_is_the_version_that_the_code_is_written_for(repository):
    assert read_pins(repository, "run")["mlcommons-loadgen"] == [mlperf_conf.VERSION]
    assert mlperf_conf.VERSION == native_build.VERSION
    assert f"--hash={native_build.HASH}" in (repository / "locks" / "run.txt").read_text()


def test_ck_keeps_ranges_that_the_pins_fit(repository):
    """`ck pull repo` installs requirements.txt, and `ck install` what a package asks for."""
    meta = json.loads((repository / "package/lib-python-package/.cm/meta.json").read_text())
    texts = [kind["extra_env"]["PIP_REQUIREMENT"] for kind in meta["variations"].values()]
    lines = (repository / "requirements.txt").read_text().splitlines()
    texts += [line for line in lines if not line.startswith("#")]
    pins = read_pins(repository, "run", "gpu")
    checked = 0
    for requirement in map(Requirement, texts):
        assert requirement.specifier
        assert "==" not in str(requirement.specifier)
        for version in pins.get(canonicalize_name(requirement.name), []):
            assert requirement.specifier.contains(version)
            checked += 1
    assert checked > len(lines)


def test_whatever_installs_checks_hashes(repository):
    files = [*repository.glob("docker/*/Dockerfile")]
    files += [repository / name for name in (".ci/setup.sh", "Makefile", "tools/sbom.py")]
    for file in files:
        lines = file.read_text().replace("\\\n", "").replace('"\n    "', "").splitlines()
        commands = [
            command
            for line in lines
            for command in re.split("&&|;", line)
            if re.search(r"(pip\b.* install |^ *pip_install )", command)
        ]
        assert commands, file
        # pip_install's own definition, and this project.
        known = ('--no-compile "$@"', "--no-deps -e .")
        for command in commands:
            assert "--require-hashes" in command or command.endswith(known), f"{file}: {command}"


def test_locks_name_no_registry(repository):
    for path in (repository / "locks").iterdir():
        assert not re.search(r"://|--(extra-)?index|--find-links|--trusted", path.read_text()), path


@pytest.mark.parametrize("is_tampered", [False, True])
def test_a_file_of_another_hash_is_refused(repository, tmp_path, is_tampered):
    """As `make setup` installs, from a folder of wheels, without a network."""
    for name in ("wheels", "checkout/.ci", "checkout/locks"):
        (tmp_path / name).mkdir(parents=True)
    wheel = tmp_path / "wheels" / "tiny_lock_test-1.0-py3-none-any.whl"
    folder = "tiny_lock_test-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            f"{folder}/METADATA", "Metadata-Version: 2.1\nName: tiny-lock-test\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{folder}/RECORD", "")
    digest = native_build.hash_file(wheel)
    if is_tampered:
        digest = digest[::-1]
    checkout = tmp_path / "checkout"
    shutil.copy(repository / ".ci" / "setup.sh", checkout / ".ci")
    (checkout / "locks/run.txt").write_text(f"tiny-lock-test==1.0 --hash=sha256:{digest}\n")
    (checkout / "locks/ck.txt").touch()
    process = subprocess.run(
        ["sh", ".ci/setup.sh", "install"],
        cwd=checkout,
        env=os.environ
        | {"PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent)},
        capture_output=True,
        text=True,
    )
    # The last step fails in any case: this checkout has no project to install.
    assert process.returncode
    assert not (checkout / ".ck/installed").exists()
    assert ("DO NOT MATCH THE HASHES" in process.stderr) == is_tampered
    installed = list(checkout.glob(f".venv/lib/python*/site-packages/{folder}"))
    assert bool(installed) != is_tampered


@pytest.fixture
def pip_audit(repository: Path, checkout: Path):
    """Runs the audit with a stand-in for pip-audit that prints, and ends with a code."""

    def run(printed: str, code: int) -> subprocess.CompletedProcess[str]:
        fakes = str(repository / "test" / "fakes")
        environment = {"PYTHONPATH": fakes, "FAKE_PRINTED": printed, "FAKE_CODE": str(code)}
        return run_lock(checkout, "--audit", **environment)

    return run


def test_the_audit_asks_for_every_pin(pip_audit, repository):
    process = pip_audit("", 0)
    assert process.returncode == 0
    assert "--strict" in process.stderr
    assert "error" not in process.stderr
    names = [path.stem for path in (repository / "locks").iterdir()]
    for package, versions in read_pins(repository, *names).items():
        for version in versions:
            assert f"\n{package}=={version}\n" in f"\n{process.stderr}"
    for file in process.stderr.split("--\n")[:-1]:
        packages = [line.partition("==")[0] for line in file.splitlines()]
        assert len(packages) == len(set(packages))


def test_an_audit_that_has_no_answer_fails_and_says_so(pip_audit):
    process = pip_audit("", 1)
    assert process.returncode == 1
    assert "error: nothing was audited" in process.stderr
    assert "out of reach" in process.stderr


def test_an_audit_that_finds_something(pip_audit):
    process = pip_audit("numpy 1.0 PYSEC-1\n", 1)
    assert (process.returncode, process.stdout) == (1, "numpy 1.0 PYSEC-1\n")
    assert "nothing was audited" not in process.stderr
