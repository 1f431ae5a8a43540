"""docs/commands.md has what the parsers say, and `tools/generate.py --check` notices when not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A copy of what tools/generate.py reads."""
    for name in ("docker", "docs", "module", "os", "package", "program", "script", "soft", "tools"):
        ignored = shutil.ignore_patterns("tmp*", "__pycache__", "*.npy")
        shutil.copytree(repository / name, tmp_path / name, ignore=ignored)
    shutil.copytree(repository / ".cm", tmp_path / ".cm")
    shutil.copytree(repository / "src", tmp_path / "src")
    return tmp_path


def check(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/generate.py", "--check"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )


def test_stale_documents_are_noticed(checkout):
    assert check(checkout).returncode == 0
    parser = checkout / "src" / "ck_mlperf" / "commands" / "serve.py"
    text = parser.read_text()
    parser.write_text(
        text.replace("default=8265", "default=8266").replace("SUMMARY = ", "SUMMARY = 'x' ")
    )
    process = check(checkout)
    assert process.returncode == 1
    assert "not current: docs/commands.md\n" in process.stdout
    assert "not current: module/loadgen/.cm/meta.json\n" in process.stdout
