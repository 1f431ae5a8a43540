"""Names of files."""

from __future__ import annotations

import os

import pytest

from ck_mlperf.common.files import is_plain_name, write_file


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\0"])
def test_names_that_lead_elsewhere(name):
    assert not is_plain_name(name)


@pytest.mark.parametrize("name", ["a", "a.png", "...", ".hidden", "a b"])
def test_names_of_files(name):
    assert is_plain_name(name)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_decides_who_may_read_and_write(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_file(tmp_path / "record.json", "{}")
    finally:
        os.umask(before)
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == mode
    assert os.listdir(tmp_path) == ["record.json"]
