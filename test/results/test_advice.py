"""What to change so that LoadGen calls a run VALID."""

import pytest
from msgspec.structs import replace

from ck_mlperf.results.advice import advise_loadgen
from ck_mlperf.results.logs import read_result

from ..builders.real_run import build_real_record
from ..builders.results import make_result


def advise_about(scenario: str, ending=None, **changes) -> str:
    result = make_result(scenario, is_valid=False, **changes)
    (advice,) = advise_loadgen(replace(result, ending=ending))
    return advice


def test_advice_for_loadgens_own_verdict():
    """One piece for each cause, whatever else follows from it."""
    assert advise_loadgen(make_result("Server")) == []
    assert "TARGET_QPS to about 900" in advise_about("Server", p99_ms=30.0, not_met=["latency"])
    short = {"duration_s": 3.0, "not_met": ["duration"]}
    assert "TARGET_QPS=223" in advise_about("Offline", samples_per_second=222.5, **short)
    assert "TARGET_LATENCY=0.9" in advise_about("MultiStream", **short)
    everything = ["latency", "duration", "queries", "early stopping"]
    advice = advise_about(
        "Server", "open queries", p99_ms=9e3, samples_per_second=300.0, not_met=everything
    )
    assert "lower CK_LOADGEN_TARGET_QPS below 300, which is what it got done of the 1000" in advice
    for setting in ("max_duration", "max_query_count"):
        in_log = "max_duration_ms" if setting == "max_duration" else setting
        advice = advise_about("SingleStream", setting, **short, **{in_log: 77})
        assert advice == (
            f"take {setting} out of user.conf, or raise it: {in_log} = 77 ended the run"
        )
    advice = advise_about("SingleStream", performance_issue_unique=True, **short)
    assert advice.startswith("take performance_issue_unique out of user.conf")


def test_how_much_longer_to_run():
    early = {"not_met": ["early stopping"]}
    advice = advise_about("SingleStream", queries=10, duration_s=1.0, **early)
    assert "about 6.4 s: set CK_LOADGEN_COUNT_OVERRIDE=64, or CK_LOADGEN_DURATION=6.4" in advice
    advice = advise_about("MultiStream", queries=331, duration_s=10.0, **early)
    assert "about 20 s: set CK_LOADGEN_COUNT_OVERRIDE=662" in advice
    result = make_result("Server", queries=1000, duration_s=1.0, is_valid=False, **early)
    late = replace(result, performance=replace(result.performance, late_queries=5))
    assert "about 2.2 s: set CK_LOADGEN_COUNT_OVERRIDE=2144" in advise_loadgen(late)[0]
    near = replace(result, performance=replace(result.performance, late_queries=10))
    (advice,) = advise_loadgen(near)
    assert "TARGET_QPS to about 900" in advice
    assert "1.00% of the queries were late" in advice


def test_advice_for_the_search_for_the_peak():
    def advise_peak(**changes) -> str:
        result = make_result("Server", **changes)
        (advice,) = advise_loadgen(replace(result, mode="FindPeakPerformance", ending=ending))
        return advice

    ending = "no start"
    advice = advise_peak(p99_ms=40.0, is_valid=False, not_met=["latency", "early stopping"])
    assert advice.startswith("set CK_LOADGEN_TARGET_QPS=250: the search begins at a rate that")
    assert "run it again on a quiet machine" in advise_peak(p99_ms=16.0, is_valid=False)
    ending = None
    assert "PerformanceOnly with CK_LOADGEN_TARGET_QPS=900" in advise_peak()


def test_advice_makes_loadgen_content(real_run):
    """LoadGen ran out of queries; with the advised expectation it does not."""
    flags = {"SCENARIO": "SingleStream", "MODE": "PerformanceOnly", "DURATION": 0.3}
    first = read_result(real_run(TARGET_LATENCY=50, **flags).outcome.log_dir)
    assert not first.performance.is_valid
    (advice,) = advise_loadgen(first)
    name, _, value = advice.partition(":")[0].removeprefix("set CK_LOADGEN_").partition("=")
    second = read_result(real_run(**{name: value}, **flags).outcome.log_dir)
    assert second.performance.is_valid


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server"])
def test_as_many_queries_as_advised_are_enough(real_run, scenario):
    rate = {"TARGET_QPS": 1000, "TARGET_LATENCY": 1000} if scenario == "Server" else {}
    flags = {"SCENARIO": scenario, "MODE": "PerformanceOnly", **rate}
    verdict = build_real_record(real_run(COUNT_OVERRIDE=30, **flags)).verdicts.loadgen
    assert verdict.not_met == ["early stopping"]
    (advice,) = verdict.advice
    assert f"CK_LOADGEN_COUNT_OVERRIDE={verdict.needed_queries}," in advice
    # As LoadGen itself says, to the query: one less is not enough.
    for count, valid in ((verdict.needed_queries, True), (verdict.needed_queries - 1, False)):
        result = read_result(real_run(COUNT_OVERRIDE=count, **flags).outcome.log_dir)
        assert result.performance.is_valid == valid
