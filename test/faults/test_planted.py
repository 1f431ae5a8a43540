"""The faults that `make test-faults` plants still fit the library."""

import pytest

from .planted import PLANTED, plant


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.name)
def test_a_planted_fault_fits(fault, tmp_path):
    plant(fault, tmp_path)
