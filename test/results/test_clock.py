"""The wall clock is set during a test. LoadGen times by it, and does not notice."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.results.report import format_report

from ..builders.real_run import build_real_record

SOURCE = Path(__file__).resolve().parents[1] / "fakes" / "step_clock.c"


@pytest.fixture
def set_clock(tmp_path, monkeypatch):
    """set_clock(seconds): processes started from now on have it set in the midst of a test."""
    compiler = shutil.which("gcc") or pytest.skip("NOT RUN: needs gcc")
    library = tmp_path / "step_clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE, "-ldl", "-lm"], check=True)

    def step(seconds):
        monkeypatch.setenv("LD_PRELOAD", str(library))
        monkeypatch.setenv("STEP_AFTER", "20000")
        monkeypatch.setenv("STEP_S", str(seconds))

    return step


def run_stepped(real_run, queries, step_s):
    """A test in SingleStream; its outcome has the step."""
    run = real_run("null", SCENARIO="SingleStream", MODE="PerformanceOnly", COUNT_OVERRIDE=queries)
    assert run.outcome.conditions["clock_step_s"] == step_s
    return run


def test_a_step_forward_is_in_the_figures_and_makes_them_invalid(real_run, set_clock):
    set_clock(0.75)
    record = build_real_record(run_stepped(real_run, 40_000, 0.75))
    assert record.timing.performance_s >= 0.75
    text = "the wall clock, by which LoadGen times, was set forward by 0.750 s during the test"
    (found,) = [found for found in record.find_disturbances() if found.kind == "clock"]
    assert found.text.startswith(text)
    assert record.verdicts.loadgen.valid is False
    assert record.verdicts.loadgen.reasons[-1].startswith(text)
    assert all(verdict.performance == "not met" for verdict in record.verdicts.rules)
    report = " ".join(format_report(record).split())
    assert f"Disturbed: {text}" in report
    assert f"INVALID because: {text}" in report


def test_a_step_back_leaves_no_figures(real_run, set_clock):
    set_clock(-1000.0)
    run = run_stepped(real_run, 40_001, -1000.0)
    with pytest.raises(UserError, match=r"detail.txt: .* = -.*: the wall clock, .* was set back"):
        build_real_record(run)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "valid"), [(0.009, True), (0.011, False), (-0.011, False)])
def test_over_one_percent_of_the_time_is_invalid(real_run, share, valid):
    run = real_run("null", SCENARIO="SingleStream", MODE="PerformanceOnly", DURATION=1)
    quiet = build_real_record(run)
    assert quiet.verdicts.loadgen.valid is True
    assert "clock" not in {found.kind for found in quiet.find_disturbances()}
    step_s = share * quiet.timing.performance_s
    conditions = run.outcome.conditions | {"clock_step_s": step_s}
    outcome = dataclasses.replace(run.outcome, conditions=conditions)
    record = build_real_record(dataclasses.replace(run, outcome=outcome))
    assert record.verdicts.loadgen.valid is valid
    assert len(record.verdicts.loadgen.reasons) == (not valid)
    assert "clock" in {found.kind for found in record.find_disturbances()}


def test_an_accuracy_run_is_not_timed(real_run):
    run = real_run("null", SCENARIO="Offline", MODE="AccuracyOnly")
    outcome = dataclasses.replace(
        run.outcome, conditions=run.outcome.conditions | {"clock_step_s": 99.0}
    )
    record = build_real_record(dataclasses.replace(run, outcome=outcome))
    assert record.verdicts.loadgen.valid is None
    assert record.find_disturbances() == []
