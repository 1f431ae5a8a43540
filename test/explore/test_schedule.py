from __future__ import annotations

from pathlib import Path

import pytest

from ck_mlperf.explore.local import find_error
from ck_mlperf.explore.runs import Outcome
from ck_mlperf.explore.schedule import OVERHEAD_S, Estimate, format_duration
from ck_mlperf.explore.sweep import read_sweep

from ..builders.records import make_record


def test_an_estimate_learns() -> None:
    sweep = read_sweep({"scenario": "Offline", "batch": "1,2", "duration": "20", "accuracy": "no"})
    runs = sweep.list_runs()
    estimate = Estimate()
    assert estimate.estimate_s(runs) == pytest.approx(6 * (22 + OVERHEAD_S))  # 10% more
    for wall_s in (30, 31, 90):
        estimate.learn(runs[0].id, wall_s)
    assert estimate.estimate_s(runs[:1]) == pytest.approx(31 + OVERHEAD_S)
    assert estimate.estimate_s(runs[1:2]) == pytest.approx(22 + OVERHEAD_S)
    outcome = Outcome(runs[1], wall_s=27, record=make_record(timing={"wall_s": 25}))
    estimate.learn_outcome(outcome)
    assert estimate.estimate_s(runs[1:2]) == pytest.approx(25 + 2)
    assert estimate.estimate_s([]) == 0


def test_an_estimate_without_a_duration(tmp_path: Path) -> None:
    conf = tmp_path / "user.conf"
    conf.write_text("*.Offline.min_duration = 3000\n")
    options = {"scenario": "Offline", "accuracy": "no", "repetitions": "1"}
    for more, test_s in (
        ({}, 11),  # user.conf beside the program
        ({"count": "100"}, 0),
        ({"env.CK_LOADGEN_CONF_FILE": str(conf)}, 3.3),
    ):
        runs = read_sweep({**options, **more}).list_runs()
        assert Estimate().estimate_s(runs) == pytest.approx(test_s + OVERHEAD_S)

    estimate = Estimate()
    estimate.learn("other.r1", 7)
    runs = read_sweep({**options, "count": "100"}).list_runs()
    assert estimate.estimate_s(runs) == pytest.approx(7 + OVERHEAD_S)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (89, "89 s"), (125, "2 min"), (12_000, "3 h 20 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("out", "err", "exit_code", "error"),
    [
        ("CK error: x", "noise\nerror: a\nerror: b\n  more", 2, "b\n  more"),
        ("lines\nCK error: [x] no space left\nend", "noise", 1, "CK error: [x] no space left"),
        ("", "Traceback\nZeroDivisionError: x\n", 1, "Traceback\nZeroDivisionError: x"),
        ("all well", "", 0, "exit code 0, without a record and without a message"),
        ("", "", -9, "ended by signal 9 (SIGKILL), without a message"),
        ("", "", -200, "signal 200 (unknown)"),
    ],
)
def test_the_error_is_the_programs_own(out: str, err: str, exit_code: int, error: str) -> None:
    assert error in find_error(out, err, exit_code)


def test_an_error_is_not_endless() -> None:
    assert len(find_error("", "error: x\n" + "y\n" * 1000, 1).splitlines()) == 20
