"""CK's own Python has only ck: hooks need the standard library alone.

That is how it is for a user who has installed CK by itself, and lets CK bring all else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

PROGRAM = "program:image-classification-tensorrt-loadgen-py"
IMPORT_ALL = """\
import importlib
import importlib.util
import pkgutil
import sys

root = sys.argv[1]
sys.path.insert(0, root + "/src")
import ck_mlperf.catalog

for module in pkgutil.iter_modules(ck_mlperf.catalog.__path__, "ck_mlperf.catalog."):
    importlib.import_module(module.name)
for number, path in enumerate(sys.argv[2:]):
    spec = importlib.util.spec_from_file_location(f"hook_{number}", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """The folder of programs of an environment in which there is CK and nothing else."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in ("ck", "imp.py", "zombie_imp"):  # Python 3.12 and newer have no imp of their own
        for installed in map(Path, dict.fromkeys(sys.path)):
            if (installed / name).exists() and str(installed) != sysconfig.get_path("stdlib"):
                os.symlink(installed / name, site / name)
                break
    command = folder / "bin" / "ck"
    command.write_text(f"#!{folder}/bin/python3\nfrom ck.kernel import cli\ncli()\n")
    command.chmod(0o755)
    return folder / "bin"


def test_every_hook_is_imported(programs, repository, tmp_path):
    script = tmp_path / "import_all.py"
    script.write_text(IMPORT_ALL)
    patterns = ("script/*/*.py", "soft/*/customize.py", "package/*/custom.py", "module/*/*.py")
    hooks = [str(path) for pattern in patterns for path in sorted(repository.glob(pattern))]
    command = [str(programs / "python3"), "-W", "error", str(script), str(repository), *hooks]
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(hooks) > 10


def test_a_run(programs, make_ck, tmp_path):
    """CK's hooks resolve all that the run needs; the libraries are another interpreter's."""
    ck = make_ck(tmp_path, programs)
    failed = ck("install", "package", "--tags=lib,python-package,numpy", "--quiet", code=2)
    assert "python3 has no pip" in failed.stderr
    assert failed.stderr.count("error:") == 1
    ck("rm", "env:*", "--force", "--tags=lang-python")
    ck("detect", "soft:compiler.python", f"--full_path={Path(sys.executable).parent / 'python3'}",
       "--quiet")  # fmt: skip
    ck("run", PROGRAM)
    record = json.loads((ck.tmp / "record.json").read_text())
    assert record["accuracy"]["total"] == 500
