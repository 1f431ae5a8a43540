"""The rules around a run; `test/program/` runs it under the real CK."""

from __future__ import annotations

import pytest

from ck_mlperf.catalog import program
from ck_mlperf.common.errors import UserError


@pytest.mark.parametrize("value", ["$HOME", "a;b", "a&b", "`id`", "'", '"', "a\nb", "(x)"])
def test_values_for_a_shell_are_refused(value):
    with pytest.raises(UserError, match="CK_LOADGEN_CONF_FILE"):
        program.check_plain({"CK_LOADGEN_CONF_FILE": value})


@pytest.mark.parametrize("name", ["CK_$(id)", "CK_A;id", "CK_A B", "CK_\n", "", "1", "CK_\xe4"])
def test_names_for_a_shell_are_refused(name):
    with pytest.raises(UserError, match="cannot pass these variables on"):
        program.check_plain({"CK_BATCH_SIZE": "1", name: "1"})


@pytest.mark.parametrize("value", ["", "/a/b-c_d.conf", "1,2", "1e-3", "a b"])
def test_plain_values_pass(value):
    program.check_plain({"CK_LOADGEN_CONF_FILE": value})
