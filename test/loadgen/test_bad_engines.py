"""Engines that give no labels, or end the process as if all were well: nothing is measured."""

import pytest

from .run_marked import SPOILT


@pytest.mark.parametrize(
    ("scenario", "interface"),
    [("SingleStream", "wheel"), ("Server", "wheel"), ("Offline", "native")],
    indirect=["interface"],
)
@pytest.mark.parametrize("spoilt", sorted(SPOILT))
def test_answers_that_are_no_labels_are_refused(run_marked, scenario, spoilt, interface):
    result = run_marked(scenario, "AccuracyOnly", images=40, failure=spoilt, **interface)
    assert result.code == 2, result.stderr
    assert result.stderr.startswith("error: marked gave answers of type ")
    assert result.stderr.endswith("a defect of the engine\n")
    assert list(result.log_dir.iterdir()) == []


@pytest.mark.parametrize("place", ["prepare", "load", "enqueue", "collect", "unload"])
@pytest.mark.parametrize("scenario", ["SingleStream", "Server"])
def test_an_engine_that_exits_has_failed(run_marked, scenario, place):
    result = run_marked(scenario, "AccuracyOnly", failure=f"exit-{place}")
    assert result.code == 2, result.stderr
    assert result.stderr.startswith("error: sys.exit(0) was called in an engine")
    assert list(result.log_dir.iterdir()) == []


@pytest.mark.parametrize("place", ["open", "close"])
def test_an_engine_that_exits_outside_of_a_test_has_failed(run_marked, place):
    result = run_marked("SingleStream", "AccuracyOnly", failure=f"exit-{place}")
    assert result.code == 2, result.stderr
    assert result.stderr.startswith("error: sys.exit(0) was called in an engine")
