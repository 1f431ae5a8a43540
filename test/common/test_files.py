"""Names of files."""

from __future__ import annotations

import pytest

from ck_mlperf.common.files import is_plain_name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\0"])
def test_names_that_lead_elsewhere(name):
    assert not is_plain_name(name)


@pytest.mark.parametrize("name", ["a", "a.png", "...", ".hidden", "a b"])
def test_names_of_files(name):
    assert is_plain_name(name)
