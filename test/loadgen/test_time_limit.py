"""A test that does not come to an end is ended."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.settings import read_settings
from ck_mlperf.loadgen.time_limit import TimeLimit, allow_silence

from ..builders.forks import start_fork


def no_logs() -> None:
    pass


class Endless:
    """A test that goes on until it is told to fail, or for ever."""

    def __init__(self, ends: bool = True) -> None:
        self.answers = 0
        self.errors: list[BaseException] = []
        self.ended: list[str] = []
        self.is_over = threading.Event()
        self._ends = ends

    def count(self) -> int:
        return self.answers

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)
        if self._ends:
            self.is_over.set()

    def end(self, reason: str) -> None:
        self.ended.append(reason)
        self.is_over.set()

    def run(self, timeout_s: float | None, silence_s: float, grace_s: float = 60) -> None:
        with TimeLimit(timeout_s, silence_s, no_logs, grace_s, self.end) as limit:
            limit.follow(self.count, self.fail)
            self.is_over.wait()


def test_after_the_timeout_it_is_told_to_fail() -> None:
    test = Endless()
    test.run(timeout_s=0.1, silence_s=60)
    (error,) = test.errors
    assert isinstance(error, UserError)
    assert "ended after CK_TIMEOUT=0.1 s, with 0 samples answered" in str(error)
    assert not test.ended


def test_an_engine_that_is_silent_is_noticed_without_a_timeout() -> None:
    test = Endless()
    test.run(timeout_s=None, silence_s=0.1)
    assert "has answered nothing for 0 s, after 0 samples" in str(test.errors[0])


def test_without_a_limit_nothing_is_ended() -> None:
    limit = TimeLimit(0, 0.01, no_logs, end=lambda reason: pytest.fail(reason))
    with limit:
        assert "time limit" not in [thread.name for thread in threading.enumerate()]


def test_server_is_silent_while_loadgen_sends_nothing() -> None:
    started = time.monotonic()
    test = Endless()
    with TimeLimit(None, 0.1, no_logs, 60, test.end) as limit:
        limit.follow(test.count, test.fail, server_qps=30)
        assert test.is_over.wait(60)
    assert time.monotonic() - started >= 1.1


def test_one_that_answers_is_left_alone() -> None:
    test = Endless()
    ticks = iter(range(1, 40))

    def count() -> int:  # asked every 20th part of the silence that is allowed
        test.answers = next(ticks)
        if test.answers == 39:
            test.is_over.set()
        return test.answers

    test.count = count  # type: ignore[method-assign]
    test.run(timeout_s=None, silence_s=0.2)
    assert not test.errors


def test_one_that_does_not_come_back_ends_with_its_process() -> None:
    test = Endless(ends=False)
    test.run(timeout_s=0.1, silence_s=60, grace_s=0.1)
    assert test.errors
    assert "CK_TIMEOUT=0.1" in test.ended[0]


def hang(stderr: int) -> None:
    sys.stderr = os.fdopen(stderr, "w")
    with TimeLimit(0.1, 60, no_logs, grace_s=0.5):
        threading.Event().wait()


def test_the_process_ends_with_status_2_and_the_reason() -> None:
    stderr, writing = os.pipe()
    process = start_fork(hang, writing)
    os.close(writing)
    process.join()
    assert process.exitcode == 2
    with open(stderr) as said:
        assert said.read().startswith("error: the test was ended after CK_TIMEOUT=0.1 s")


@pytest.mark.parametrize("scenario", ["SingleStream", "Offline", "Server"])
def test_a_slow_run_ends_after_its_timeout_and_leaves_nothing(
    run_marked, tmp_path: Path, scenario: str
) -> None:
    variables = {"TIMEOUT": 1, "LOADGEN_COUNT_OVERRIDE": 100_000}
    if scenario == "Server":
        variables["LOADGEN_TARGET_QPS"] = 5000
    run = run_marked(scenario, "PerformanceOnly", failure="slow", **variables)
    assert run.code == 2
    assert "ended after CK_TIMEOUT=1 s" in run.stderr
    assert not list(run.log_dir.iterdir())


@pytest.mark.parametrize(
    ("scenario", "place"),
    [
        ("SingleStream", "open"),
        ("SingleStream", "load"),
        ("SingleStream", "enqueue"),
        ("Offline", "collect"),
        ("Server", "collect"),
        ("SingleStream", "close"),
    ],
)
def test_an_engine_that_hangs_ends_and_leaves_nothing(
    run_marked, scenario: str, place: str
) -> None:
    variables = {"TIMEOUT": 0.5, "LOADGEN_COUNT_OVERRIDE": 100, "LOADGEN_TARGET_QPS": 5000}
    if scenario == "SingleStream":
        del variables["LOADGEN_TARGET_QPS"]
    run = run_marked(scenario, "PerformanceOnly", failure=f"hang-{place}", **variables)
    assert run.code == 2, run.stderr
    assert "ended after CK_TIMEOUT=0.5 s" in run.stderr
    assert not run.log_dir.exists() or not list(run.log_dir.iterdir())


def test_an_engine_that_hangs_in_c_with_pythons_lock_ends(run_marked) -> None:
    run = run_marked(
        *("SingleStream", "PerformanceOnly"),
        failure="stuck-collect",
        TIMEOUT=0.5,
        LOADGEN_COUNT_OVERRIDE=100,
    )
    assert run.code == 1, run.stderr
    assert run.stderr.startswith("Timeout (0:00:0")
    assert "in collect\n" in run.stderr
    assert not list(run.log_dir.glob("mlperf_log_*"))


def test_a_timeout_within_the_shortest_duration_is_refused() -> None:
    performance = {"CK_LOADGEN_MODE": "PerformanceOnly", "CK_TIMEOUT": "30"}
    for variables, is_refused in (
        ({}, True),
        ({"CK_LOADGEN_DURATION": "30"}, True),
        ({"CK_LOADGEN_DURATION": "29"}, False),
        ({"CK_TIMEOUT": "0"}, False),
        ({"CK_LOADGEN_COUNT_OVERRIDE": "5"}, False),
        ({"CK_LOADGEN_MODE": "AccuracyOnly"}, False),
    ):
        if is_refused:
            with pytest.raises(UserError, match="CK_TIMEOUT=30: the test takes at least"):
                read_settings(performance | variables)
        else:
            timeout_s = float(variables.get("CK_TIMEOUT", 30))
            assert read_settings(performance | variables).timeout_s == timeout_s


def test_larger_batches_may_be_silent_for_longer() -> None:
    assert allow_silence(2048) > allow_silence(1) > 600
