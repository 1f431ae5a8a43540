"""`ck explore loadgen --rehearse` with the real CK, LoadGen and the embedded default."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..conftest import CkHome

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_one_command_goes_from_nothing_to_a_tree(own_ck: CkHome) -> None:
    # docs/explore.md says: in less than 5 minutes.
    said = own_ck("explore", "loadgen", "--submission=edge", "--rehearse", timeout=300).stdout
    assert "note: A REHEARSAL, 2 s a run: no round takes such results" in said
    assert "12 of 12 runs are recorded in experiment rehearsal.digits.edge" in said
    tree = own_ck.root / "rehearsal.digits.edge" / "open" / "REHEARSAL"
    system = json.loads((tree / "systems" / "REHEARSAL.json").read_text())
    assert system["system_type"] == "edge"
    assert "a rehearsal" in system["sw_notes"]
    for scenario in ("SingleStream", "MultiStream", "Offline"):
        folder = tree / "results" / "REHEARSAL" / "digits" / scenario
        assert "a rehearsal" in (folder / "README.md").read_text()
        assert "accuracy=99.200%" in (folder / "accuracy" / "accuracy.txt").read_text()
        assert (folder / "performance" / "run_1" / "mlperf_log_detail.txt").is_file()
        # Answers do not depend on how fast the machine is; TEST04 and the rates do.
        assert "TEST PASS" in (folder / "TEST01" / "verify_accuracy.txt").read_text()
        assert (folder / "TEST04" / "verify_performance.txt").is_file()
