"""How a package's steps are run; `test/package/` installs packages under the real CK."""

from __future__ import annotations

import sys

import pytest

from ck_mlperf.catalog.install import expand, run_steps
from ck_mlperf.catalog.kernel import Dep
from ck_mlperf.common.errors import UserError

PYTHON = {"python": Dep({"uoa": "1", "dict": {"customize": {"full_path": sys.executable}}})}


def test_steps_are_filled_in_and_optional_parts_left_out():
    step = ["-m", "tool", "${URL}", ["--mirror", "${MIRROR}"], ["--file", "${FILE}"]]
    values = {"URL": "http://x/?a=1&b=$(2)", "MIRROR": "", "FILE": "/a b"}
    assert expand(step, values) == ["-m", "tool", "http://x/?a=1&b=$(2)", "--file", "/a b"]


def test_a_step_with_an_unknown_name_is_an_error():
    with pytest.raises(KeyError):
        expand(["${NOT_THERE}"], {})


def install(folder, recipe):
    run_steps(str(folder), str(folder / "installed"), recipe, {"WHAT": "done", "NONE": ""}, PYTHON)


def test_steps_run_without_a_shell(tmp_path):
    (tmp_path / "write.py").write_text("import sys; open(sys.argv[1], 'w').write(sys.argv[2])")
    steps = [["${PACKAGE_DIR}/write.py", "${INSTALL_DIR}/out", "${WHAT}; touch $$HOME/x"]]
    install(tmp_path, {"steps": steps})
    assert (tmp_path / "installed" / "out").read_text() == "done; touch $HOME/x"


def test_a_failed_step_ends_the_command_with_its_code(tmp_path):
    (tmp_path / "end.py").write_text("raise SystemExit(7)")
    (tmp_path / "never.py").write_text("open('never', 'w')")
    with pytest.raises(SystemExit) as ended:
        install(tmp_path, {"steps": [["${PACKAGE_DIR}/end.py"], ["${PACKAGE_DIR}/never.py"]]})
    assert ended.value.code == 7
    assert not (tmp_path / "installed" / "never").exists()


def test_files_of_the_package_are_copied(tmp_path):
    (tmp_path / "model.json").write_text("{}")
    install(tmp_path, {"copy": ["model.json"]})
    assert (tmp_path / "installed" / "model.json").read_text() == "{}"


def test_a_value_that_the_user_must_give(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path.name}: give it by --env.NONE"):
        install(tmp_path, {"required": {"NONE": "give it by --env.NONE="}})
    assert not (tmp_path / "installed").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "installed").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"installs into \$CK_TOOLS: make it writable"):
        install(tmp_path, {})
