"""Which requirement an interpreter meets."""

from __future__ import annotations

import importlib.metadata
import json

from ck_mlperf.machine.distributions import find_version

NUMPY = importlib.metadata.version("numpy")


def test_the_first_requirement_that_is_met():
    assert find_version(["no-such-library-here>=1", "numpy>=1", "pytest"]) == (NUMPY, None)
    assert find_version(["numpy>=9999", "numpy"]) == (NUMPY, None)


def test_what_is_installed_and_does_not_fit():
    assert find_version(["numpy>=9999", "pytest>=9999"]) == (None, f"numpy {NUMPY}")
    assert find_version(["no-such-library-here"]) == (None, None)


def test_the_command(run_module):
    printed = run_module("machine.distributions", "numpy>=9999").stdout
    assert json.loads(printed) == {"version": None, "unfit": f"numpy {NUMPY}"}
