"""Making LoadGen's C++ interface: what is refused, and that nothing is left by half.

That it can be made is in conftest.py's `native_library`.
"""

import hashlib
import io
import os
import tarfile

import pytest

import ck_mlperf.loadgen.harness.native_build as module
from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.harness.native_build import build

pytestmark = pytest.mark.filterwarnings("error")


def write_sdist(path, files, version="6.0.17"):
    with tarfile.open(path, "w:gz") as packed:
        for name, text in files.items():
            member = tarfile.TarInfo(f"mlcommons_loadgen-{version}/{name}")
            member.size = len(text)
            packed.addfile(member, io.BytesIO(text.encode()))
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A stand-in for g++ that fails; its arguments are in the file that it returns."""
    folder = tmp_path / "bin"
    folder.mkdir()
    told = tmp_path / "told"
    program = folder / "g++"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {told}\necho "no good"\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return told


SOURCES = {
    "loadgen.cc": "int a;",
    "version.cc": "int b;",
    "generated/version_generated.cc": "int c;",
}


def test_without_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=r"g\+\+ is not installed.*Runs use LoadGen's Python module"
    ):
        build(tmp_path / "library.so")


@pytest.mark.parametrize("version", ["", "6", "6.0.17; true", "../6.0", "6.0.17 --pre"])
def test_a_version_that_is_none(tmp_path, version):
    with pytest.raises(UserError, match="want numbers and dots"):
        build(tmp_path / "library.so", version)


@pytest.mark.parametrize("known_hash", ["md5:" + "0" * 32, "sha256:12", "0" * 64])
def test_a_hash_that_is_none(tmp_path, known_hash):
    with pytest.raises(UserError, match="want sha256: and 64 hex digits"):
        build(tmp_path / "library.so", known_hash=known_hash)


def test_another_sdist(tmp_path, compiler):
    sdist = tmp_path / "sdist.tar.gz"
    write_sdist(sdist, SOURCES)
    with pytest.raises(
        UserError, match=r"sdist\.tar\.gz: its sha256 is [0-9a-f]{64}, expected a2e8"
    ):
        build(tmp_path / "out" / "library.so", sdist=sdist)
    assert not any((tmp_path / "out").iterdir())
    assert not compiler.exists()


def test_what_pip_does_not_get(tmp_path, compiler, monkeypatch, capfd):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match=r"pip did not get the sources.*--file PATH"):
        build(tmp_path / "out" / "library.so")
    assert "mlcommons-loadgen==6.0.17" in capfd.readouterr().err
    assert not any((tmp_path / "out").iterdir())


def test_what_cannot_be_compiled(tmp_path, compiler):
    sdist = tmp_path / "sdist.tar.gz"
    known_hash = write_sdist(sdist, SOURCES)
    with pytest.raises(UserError, match=r"ended with exit code 3:\nno good"):
        build(tmp_path / "out" / "library.so", known_hash=known_hash, sdist=sdist)
    assert not any((tmp_path / "out").iterdir())
    told = compiler.read_text()
    assert "-O3" in told
    assert "mlcommons_loadgen-6.0.17/loadgen.cc" in told


def test_sources_of_another_name(tmp_path, compiler):
    sdist = tmp_path / "sdist.tar.gz"
    known_hash = write_sdist(sdist, SOURCES, "6.0.16")
    with pytest.raises(UserError, match=r"no sdist of LoadGen 6\.0\.17"):
        build(tmp_path / "out" / "library.so", known_hash=known_hash, sdist=sdist)


def test_members_that_point_outside(tmp_path, compiler):
    sdist = tmp_path / "sdist.tar.gz"
    known_hash = write_sdist(sdist, {"../../x.cc": "int a;"})
    with pytest.raises(UserError, match="points outside the folder: refused"):
        build(tmp_path / "out" / "library.so", known_hash=known_hash, sdist=sdist)


def test_it_is_made_once(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(module, "build", lambda output: made.append(output) or output.touch())
    first = module.build_once(tmp_path / "cache")
    assert module.build_once(tmp_path / "cache") == first
    assert made == [first]
    assert "6.0.17" in first.name
