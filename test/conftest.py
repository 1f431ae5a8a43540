"""Fixtures that tests of every room share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .builders.images import images
from .builders.points import record, save_point
from .builders.real_run import real_run

__all__ = ["images", "real_run", "record", "save_point"]

# What a shell starts in the background ignores Ctrl-C, and so would the programs to which tests
# send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "image-classification-tensorrt-loadgen-py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first: at the end no worker waits for another one's long file.

    Tests that ask for a GPU are marked so. Those of LoadGen's C++ interface are slow: it is reached
    by ctypes, the same in every Python.
    """
    for item in items:
        if "gpu" in getattr(item, "fixturenames", ()):
            item.add_marker("gpu")
        if hasattr(item, "callspec") and item.callspec.params.get("interface") == "native":
            item.add_marker("slow")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real ImageNet images and trained weights, which lie beside a checkout and never in it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"NOT RUN: needs real images and weights in {folder}")
    return folder


@pytest.fixture(scope="session")
def inference() -> Path:
    """Where MLPERF_INFERENCE names a checkout of mlcommons/inference."""
    folder = os.environ.get("MLPERF_INFERENCE")
    if not folder:
        pytest.skip("NOT RUN: needs MLPERF_INFERENCE=PATH of a checkout of mlcommons/inference")
    return Path(folder)


@pytest.fixture(scope="session")
def library_environment() -> dict[str, str]:
    """The environment of a process that imports ck_mlperf."""
    return os.environ | {"PYTHONPATH": str(ROOT / "src")}


@pytest.fixture
def run_module(library_environment) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_module("common.downloads", "--url", ...)`: `python -m ck_mlperf.common.downloads ...`"""

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"ck_mlperf.{name}", *map(str, arguments)]
        return subprocess.run(
            command, env=library_environment, capture_output=True, text=True, check=False
        )

    return run


class CommandFailedError(AssertionError):
    """A command that should have succeeded did not; the message holds all that it printed."""


class CkHome:
    """A copy of this repository, registered with a CK that has a home of its own."""

    def __init__(self, folder: Path, programs: Path = Path(sys.executable).parent) -> None:
        self.root = folder / "ck-mlperf"
        self.tools = folder / "tools"
        self.environment = dict(
            os.environ,
            CK_REPOS=str(folder / "repos"),
            CK_TOOLS=str(self.tools),
            HOME=str(folder / "home"),
            PATH=os.pathsep.join([str(programs), os.environ["PATH"]]),
            PYTHONPATH=str(ROOT / "test/fakes/in_ck"),
        )
        for name in ("CK_LOCAL_REPO", "CK_ROOT", "CK_CFG"):
            self.environment.pop(name, None)
        shutil.copytree(ROOT, self.root, ignore=ignore_untracked)
        (folder / "home").mkdir()
        self.make_home(folder)

    def make_home(self, folder: Path) -> None:
        """Make CK's folders, and register the copy with it."""
        for name in ("repos", "tools"):
            (folder / name).mkdir()
        self("set", "kernel", "--var.check_missing_modules=no", "--var.skip_repo_requirements=yes")
        self("import", "repo", f"--path={self.root}", "--quiet")

    def __call__(
        self, *arguments: str, code: int | None = 0, timeout: float = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `ck` without a terminal. Raises CommandFailedError unless it exits with `code`."""
        process = subprocess.run(
            ["ck", *arguments],
            env=self.environment | environment,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if code is not None and process.returncode != code:
            raise CommandFailedError(
                f"ck {' '.join(arguments)}: exit code {process.returncode}, not {code}\n"
                f"{process.stdout[-8000:]}\n--- stderr\n{process.stderr[-8000:]}"
            )
        return process

    @property
    def tmp(self) -> Path:
        """Where the program runs and leaves its files."""
        return self.root / "program" / PROGRAM / "tmp"

    @property
    def experiments(self) -> Path:
        """Where `--record --record_repo=local` puts experiments."""
        return Path(self.environment["CK_REPOS"]) / "local" / "experiment"


def ignore_untracked(folder: str, names: list[str]) -> set[str]:
    return {
        name
        for name in names
        if name in (".git", ".venv", ".ck", ".nox", "tmp", "__pycache__")
        or name.startswith("tmp-")
        or name.endswith("_cache")
    }


@pytest.fixture(scope="session")
def ck(tmp_path_factory: pytest.TempPathFactory) -> CkHome:
    """One CK home for all tests that only add to it."""
    return CkHome(tmp_path_factory.mktemp("ck"))


@pytest.fixture
def make_ck() -> type[CkHome]:
    """For a CK home in a folder of the test's, of the `ck` in another folder of programs."""
    return CkHome


@pytest.fixture
def own_ck(tmp_path: Path) -> CkHome:
    """A CK home for one test that spoils it."""
    return CkHome(tmp_path)
