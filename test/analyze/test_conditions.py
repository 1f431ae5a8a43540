"""What --fail_on takes, and when it is met."""

import pytest

from ck_mlperf.analyze.compare import Interval
from ck_mlperf.analyze.conditions import (
    FailOn,
    Outcome,
    conclude,
    find_invalid,
    find_slower,
    read_fail_on,
)
from ck_mlperf.common.errors import UserError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("slower", FailOn(slower=0.0)),
        ("slower:5%", FailOn(slower=0.05)),
        ("invalid,slower:2.5%", FailOn(slower=0.025, invalid=True)),
    ],
)
def test_conditions(text, wanted):
    assert read_fail_on(text) == wanted


@pytest.mark.parametrize("text", ["", "yes", "slower:5", "slower:-5%", "slower:100%", "invalid:1%"])
def test_conditions_that_there_are_not(text):
    with pytest.raises(ValueError, match="want slower, slower:5% or invalid"):
        read_fail_on(text)


@pytest.mark.parametrize(
    ("interval", "share", "is_met"),
    [
        (Interval(0.9, 0.85, 0.95), 0.0, True),
        (Interval(0.9, 0.85, 0.95), 0.1, True),  # exactly that share
        (Interval(0.9, 0.85, 0.95), 0.11, False),
        (Interval(0.5, 0.2, 1.01), 0.1, False),  # within the noise, however large
        (Interval(1.5, 1.4, 1.6), 0.0, False),
    ],
)
def test_slower_is_outside_the_noise_and_by_the_share(interval, share, is_met):
    outcome = find_slower([("a point", interval)], share)
    assert bool(outcome.met) == is_met
    assert outcome.problem is None
    assert conclude(outcome) == is_met


def test_what_cannot_be_told_does_not_pass(capsys):
    for compared in ([], [("a point", None), ("another", None)]):
        with pytest.raises(UserError, match="--fail_on=slower: nothing can be told"):
            conclude(find_slower(compared, 0.05))
    outcome = find_slower([("a point", None), ("another", Interval(1, 0.9, 1.1))], 0.05)
    assert conclude(outcome) == 0
    assert capsys.readouterr().err == "cannot tell, too few runs: a point\n"


def test_runs_that_failed_or_are_invalid(row, capsys):
    runs = [
        row(loadgen_valid=True),
        row(loadgen_valid=None),
        row(loadgen_valid=False, invalid_reason="too few queries"),
        row(error="Traceback\nno plan\n", loadgen_valid=None),
    ]
    outcome = find_invalid(runs)
    assert len(outcome.met) == 2
    assert outcome.met[0].endswith(
        "digits fp32 on onnxruntime-cpu, MultiStream, 8 samples a query, batch 32: too few queries"
    )
    assert outcome.met[1].endswith("MultiStream: no plan")
    assert conclude(outcome) == 1
    assert capsys.readouterr().err.splitlines() == outcome.met
    assert conclude(find_invalid(runs[:2])) == 0
    with pytest.raises(UserError, match="no runs to judge"):
        conclude(find_invalid([]))


def test_what_is_met_counts_also_where_another_condition_cannot_be_judged():
    assert conclude(Outcome(["slower"], "nothing to compare with")) == 1
