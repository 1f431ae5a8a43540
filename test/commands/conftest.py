"""`ck-mlperf VERB` in this process, with a local repository of CK's that is the test's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ck_mlperf.commands import main


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of CK's local repository, where save_point puts experiments."""
    folder = tmp_path / "local"
    folder.mkdir()
    monkeypatch.setenv("CK_LOCAL_REPO", str(folder))
    return folder


@pytest.fixture
def command(local: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """command("analyze", "--query=...", code=0): what the verb prints."""

    def run(*words: str, code: int = 0) -> str:
        assert main(words) == code
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(local: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """refused("analyze", "--quer=..."): what is printed of words that make no sense."""

    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        return printed.err

    return run
