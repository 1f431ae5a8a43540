"""LoadGen's C++ interface as a package, and a run that uses it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

PROGRAM = "program:image-classification-tensorrt-loadgen-py"
RUN = ["run", PROGRAM, "--skip_print_timers", "--env.CK_LOADGEN_MODE=PerformanceOnly",
       "--env.CK_LOADGEN_SCENARIO=Offline", "--env.CK_LOADGEN_DURATION=1"]  # fmt: skip


def read_record(ck) -> dict:
    return json.loads((ck.tmp / "record.json").read_text())


@pytest.mark.slow
@pytest.mark.long
def test_a_run_uses_it_where_it_is_installed(own_ck):
    ck = own_ck
    if shutil.which("g++") is None:
        pytest.skip("NOT RUN: needs g++")
    assert "LoadGen 6.0.17: VALID" in ck(*RUN).stdout
    before = read_record(ck)
    assert before["verdicts"]["loadgen"]["interface"] == "wheel"
    assert "loadgen-native" not in {dep["key"] for dep in before["deps"]}

    # Without optimising, which is what takes the time.
    ck("install", "package:lib-loadgen-native", "--quiet", CXXFLAGS="-O0")
    assert "LoadGen 6.0.17 (C++ interface): VALID" in ck(*RUN).stdout
    record = read_record(ck)
    assert record["verdicts"]["loadgen"]["interface"] == "native"
    dep = next(dep for dep in record["deps"] if dep["key"] == "loadgen-native")
    assert dep["version"] == record["verdicts"]["loadgen"]["version"] == "6.0.17"

    # Of another version of the shim: the run says so, and uses the Python module.
    shim = ck.root / "src/ck_mlperf/loadgen/harness/native.cc"
    shim.write_text(shim.read_text() + "// newer\n")
    printed = ck(*RUN).stdout
    assert "LoadGen by its Python module, not by its C++ interface: " in printed
    assert "ck install package:lib-loadgen-native" in printed
    assert read_record(ck)["verdicts"]["loadgen"]["interface"] == "wheel"

    library = next(ck.tools.glob("lib-loadgen-native/*.so"))
    library.unlink()
    failed = ck(*RUN, code=2)
    assert f"{library} is registered with CK and gone" in failed.stderr


def test_an_sdist_that_is_another(own_ck, tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("NOT RUN: needs g++")
    sdist = tmp_path / "sdist.tar.gz"
    sdist.write_text("not it")
    failed = own_ck("install", "package:lib-loadgen-native", "--quiet",
                    f"--env.PACKAGE_FILE={sdist}", code=2)  # fmt: skip
    assert f"{sdist}: its sha256 is" in failed.stderr
    assert not [*Path(own_ck.tools).glob("lib-loadgen-native/*.so")]
    listed = own_ck("search", "env", "--tags=loadgen-native").stdout
    assert "tmp" not in listed
