"""CK's hooks: files that CK imports in its own interpreter, and what they promise it."""

from __future__ import annotations

import importlib.util
import os

import pytest

from ck_mlperf.catalog import kernel
from ck_mlperf.common.errors import UserError

PATTERNS = ("script/hooks/*.py", "package/*/custom.py", "soft/*/customize.py", "module/*/module.py")
MOST_LINES = 60


def list_hooks(repository):
    return sorted(path for pattern in PATTERNS for path in repository.glob(pattern))


def test_repository_is_found_from_the_hooks(repository):
    assert os.path.samefile(kernel.REPOSITORY, repository)


def test_hooks_only_translate(repository):
    hooks = list_hooks(repository)
    assert len(hooks) > 10
    assert not [path for path in hooks if len(path.read_text().splitlines()) > MOST_LINES]


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UserError("what, where, and the fix"), 2, "error: what, where, and the fix\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)
def test_an_error_of_the_users_ends_the_command(capsys, raised, code, said):
    @kernel.hook
    def fail(i):
        raise raised

    with pytest.raises(SystemExit) as ended:
        fail({})
    assert ended.value.code == code
    assert capsys.readouterr().err == said


def load_customize(repository, entry: str):
    path = repository / "soft" / entry / "customize.py"
    spec = importlib.util.spec_from_file_location(f"customize_{entry}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tensorrt_is_known_by_its_major_version(repository):
    package = load_customize(repository, "lib.python.package")
    i = {"customize": {"full_path": "/site", "version": "10.9.0"}, "tags": ["lib", "tensorrt"]}
    assert package.setup(i)["bat"] == "export PYTHONPATH=${PYTHONPATH}:/site\n"
    assert i["tags"] == ["lib", "tensorrt", "tensorrt-10"]
    assert i["customize"]["python_site"] == "/site"
    i = {"customize": {"full_path": "/site", "version": "1.2"}, "tags": ["lib", "tqdm"]}
    package.setup(i)
    assert i["tags"] == ["lib", "tqdm"]
