import json
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from ck_mlperf.results.advice import advise_loadgen
from ck_mlperf.results.logs import LoadgenResult, Performance, read_result
from ck_mlperf.results.record import (
    Accuracy,
    Counts,
    EarlyStopped,
    Latencies,
    Throughput,
)
from ck_mlperf.results.rules import NAMES, judge, load_rules
from ck_mlperf.results.verdicts import Check, Message

from ..builders.records import make_record

RULES = load_rules()
DIGITS = make_record()
ENGINE = DIGITS.engine
WHOLE = replace(
    DIGITS.dataset,
    name="imagenet",
    count=50_000,
    used=50_000,
    source_list_sha256=RULES["dataset"]["list_sha256"],
)
RESNET = replace(DIGITS.model, name="resnet50_v1")


def make_accuracy(good: int, total: int = 50_000) -> Accuracy:
    return Accuracy(100 * good / total, None, good, total)


GOOD = make_accuracy(38_000)


def make_result(scenario: str, p99_ms: float = 1.0, **changes) -> LoadgenResult:
    """A run that meets today's rules, with `changes` to its figures or its settings."""
    p99_ns, others_ns = round(p99_ms * 1e6), round(p99_ms * 0.9e6)
    latencies_ns = dict.fromkeys(Latencies.__struct_fields__, others_ns)
    settings = {
        "min_duration_ms": 600_000,
        "performance_sample_count": 1024,
        "target_latency_percentile": 0.9 if scenario == "SingleStream" else 0.99,
        "target_latency_ns": 15_000_000,
        "target_qps": 1000,
    }
    figures = {
        "is_valid": True,
        "reasons": [],
        "queries": 1 if scenario == "Offline" else 300_000,
        "samples_per_query": {"MultiStream": 8, "Offline": 660_000}.get(scenario, 1),
        "duration_s": 600.0,
        "samples_per_second": 1000.0,
    }
    settings |= {name: value for name, value in changes.items() if name not in figures}
    figures |= {name: value for name, value in changes.items() if name in figures}
    queries, per_query = figures["queries"], figures["samples_per_query"]
    rate = figures["samples_per_second"]
    performance = Performance(
        is_valid=figures["is_valid"],
        reasons=figures["reasons"],
        duration_s=figures["duration_s"],
        counts=Counts(queries, queries * per_query, per_query),
        throughput=Throughput(rate, rate / per_query, None),
        latencies_ns=Latencies(**latencies_ns | {"p99": p99_ns, "p99_9": p99_ns, "max": p99_ns}),
        early_stopped_ns=EarlyStopped(p90=950_000, p99=1_100_000),
    )
    return LoadgenResult("6.0.17", scenario, "SubmissionRun", settings, performance, [], [])


def judge_by(rule_set, result, accuracy=GOOD, dataset=WHOLE, model=RESNET, engine=ENGINE):
    verdicts = judge(result, accuracy, dataset, model, engine)
    (verdict,) = [verdict for verdict in verdicts if verdict.id == rule_set]
    return verdict


def failed(verdict) -> dict[str, Check]:
    return {check.metric: check for check in verdict.checks if not check.ok}


def test_the_table_is_whole():
    assert RULES["version"] == 1
    used = set()
    for rule_set in RULES["rule_sets"]:
        assert rule_set["status"] in ("current", "retired", "historic")
        for rule in [*rule_set["checks"], *rule_set["scenarios"].values()]:
            assert rule["source"] in RULES["sources"]
            assert rule["section"]
            assert rule.get("metric", rule.get("result")) in NAMES
            used.add(rule["source"])
        for rule in rule_set["checks"]:
            assert len({"at_least", "at_most", "equal"} & rule.keys()) == 1
            assert set(rule.get("scenarios", [])) <= set(rule_set["scenarios"])
    assert used == set(RULES["sources"])
    assert [s["id"] for s in RULES["rule_sets"]] == ["edge", "datacenter", "v0.5"]


def test_list_of_the_validation_set(shared_data: Path):
    from ck_mlperf.images.dataset import hash_image_list, parse_labels

    listed = parse_labels(shared_data / "lists" / "ILSVRC2012_val.txt")
    assert len(listed) == RULES["dataset"]["count"]
    assert hash_image_list(listed) == RULES["dataset"]["list_sha256"]


@pytest.mark.parametrize(
    ("scenario", "sets"),
    [
        ("SingleStream", ["edge", "v0.5"]),
        ("MultiStream", ["edge", "v0.5"]),
        ("Server", ["datacenter", "v0.5"]),
        ("Offline", ["edge", "datacenter", "v0.5"]),
    ],
)
def test_a_run_that_meets_everything(scenario, sets):
    verdicts = judge(make_result(scenario), GOOD, WHOLE, RESNET, ENGINE)
    assert [verdict.id for verdict in verdicts] == sets
    for verdict in verdicts:
        assert not failed(verdict)
        assert verdict.summary == "performance rules met; accuracy met"
        is_stand_in = (verdict.id, scenario) == ("v0.5", "MultiStream")
        assert verdict.valid != is_stand_in
        assert bool(verdict.stand_in) == is_stand_in
        assert verdict.result.value is not None


def test_status_of_resnet50_in_datacenter():
    verdict = judge_by("datacenter", make_result("Server"))
    assert verdict.status == "retired"
    assert "v5.0" in verdict.note


@pytest.mark.parametrize(
    ("rule_set", "scenario", "changes", "metric", "advice"),
    [
        ("edge", "SingleStream", {"queries": 63}, "queries", "CK_LOADGEN_COUNT_OVERRIDE=64"),
        ("edge", "SingleStream", {"target_latency_percentile": 0.5}, "percentile", "user.conf"),
        ("edge", "MultiStream", {"queries": 661}, "queries", "661 of 662"),
        ("edge", "MultiStream", {"samples_per_query": 30}, "samples_per_query", "NESS=8"),
        ("edge", "Offline", {"samples_per_query": 24_575}, "samples", "24,575 of 24,576"),
        ("edge", "Offline", {"performance_sample_count": 500}, "loaded_images", "BUFFER_SIZE"),
        ("edge", "Offline", {"performance_issue_same": True}, "drawn_at_random", "user.conf"),
        ("edge", "Offline", {"is_valid": False, "reasons": ["ran 1 s"]}, "loadgen_valid",
         "LoadGen INVALID because: ran 1 s"),
        ("edge", "Offline", {"duration_s": 599.9}, "duration_s", "CK_LOADGEN_TARGET_QPS=1000"),
        ("edge", "SingleStream", {"duration_s": 10.0, "min_duration_ms": 10_000}, "duration_s",
         "ran 10 s of 600 s: set CK_LOADGEN_DURATION=600"),
        ("edge", "MultiStream", {"duration_s": 10.0}, "duration_s", "TARGET_LATENCY=0.9"),
        ("datacenter", "Server", {"p99_ms": 16.5}, "p99_ms",
         "p99 is 16.5 ms, over the 15 ms bound by 10%: lower CK_LOADGEN_TARGET_QPS to about 900"),
        ("datacenter", "Server", {"p99_ms": 99.0, "samples_per_second": 700.0}, "p99_ms",
         "lower CK_LOADGEN_TARGET_QPS below 700, which is what it got done"),
        ("datacenter", "Server", {"target_latency_ns": 20_000_000}, "latency_bound_ms",
         "CK_LOADGEN_TARGET_LATENCY=15"),
        ("v0.5", "MultiStream", {"p99_ms": 61.2, "samples_per_query": 30}, "p99_ms",
         "p99 is 61.2 ms, over the 50 ms bound by 22%: "
         "lower CK_LOADGEN_MULTISTREAMNESS to about 24"),
        ("v0.5", "MultiStream", {"p99_ms": 500.0}, "p99_ms", "one sample alone takes longer"),
        ("v0.5", "MultiStream", {"queries": 1440}, "queries", "1,440 of 270,336"),
        ("v0.5", "SingleStream", {"queries": 1023}, "queries", "1,023 of 1,024"),
        ("v0.5", "SingleStream", {"duration_s": 59.0, "min_duration_ms": 0}, "duration_s",
         "CK_LOADGEN_DURATION=60"),
    ],
)  # fmt: skip
def test_one_rule_broken(rule_set, scenario, changes, metric, advice):
    verdict = judge_by(rule_set, make_result(scenario, **changes))
    (check,) = failed(verdict).values()
    assert check.metric == metric
    assert advice in check.advice
    assert verdict.performance == "not met"
    assert not verdict.valid
    assert check.margin is None or check.margin < 0
    assert check.source


def test_bounds_are_met_to_the_dot():
    assert judge_by("datacenter", make_result("Server", p99_ms=15.0)).valid
    result = make_result("Offline", samples_per_query=24_576)
    assert judge_by("edge", result).valid
    margins = {c.metric: c.margin for c in judge_by("edge", result).checks}
    assert margins["samples"] == 0
    assert margins["duration_s"] == 0


def test_accuracy_to_reach():
    """99% of 76.46% is 37,847.7 of 50,000."""
    result = make_result("Offline")
    for good, valid in ((37_848, True), (37_847, False)):
        verdict = judge_by("edge", result, make_accuracy(good))
        assert verdict.valid == valid
        assert verdict.accuracy == ("met" if valid else "not met")
    assert "75.694% is under 75.695%" in failed(verdict)["top1_percent"].advice


def test_without_accuracy_nothing_is_valid():
    verdict = judge_by("edge", make_result("Offline"), accuracy=None)
    assert verdict.summary == "performance rules met; accuracy not checked in this run"
    assert not verdict.valid


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"dataset": replace(WHOLE, used=500)}, "500 of imagenet, not the 50,000"),
        ({"dataset": replace(WHOLE, source_list_sha256="0" * 64)}, "not the 50,000"),
        ({"dataset": replace(WHOLE, name="digits", used=500)}, "500 of digits"),
        ({"model": replace(RESNET, weights="random")}, "weights are random"),
        ({"model": replace(RESNET, name="mobilenet")}, "mobilenet, not ResNet-50"),
        ({"engine": replace(ENGINE, name="null")}, "no network ran"),
    ],
)
def test_unofficial_runs_are_never_valid(parts, reason):
    verdict = judge_by("edge", make_result("Offline"), **parts)
    assert verdict.performance == "met"
    assert not verdict.valid
    assert reason in "; ".join(verdict.unofficial)


def test_accuracy_on_other_images_is_not_compared():
    accuracy = make_accuracy(490, 500)
    verdict = judge_by("edge", make_result("Offline"), accuracy, replace(WHOLE, used=500))
    assert verdict.accuracy == "not comparable"
    assert not [check for check in verdict.checks if check.part == "accuracy"]


def test_accuracy_run():
    result = replace(make_result("Offline"), mode="AccuracyOnly", performance=None)
    verdict = judge_by("edge", result)
    assert verdict.summary == "performance not measured in this run; accuracy met"
    assert not verdict.valid


def test_search_for_the_peak_is_no_test():
    result = replace(make_result("Server"), mode="FindPeakPerformance")
    assert not judge_by("datacenter", result).valid


def test_errors_in_the_log_fail_a_run():
    result = replace(make_result("Offline"), errors=[Message("Multiple conf", 2)])
    check = failed(judge_by("edge", result))["loadgen_errors"]
    assert check.measured == 2
    assert "Multiple conf" in check.advice


def test_setting_that_the_log_does_not_have():
    result = make_result("Offline")
    settings = {k: v for k, v in result.settings.items() if k != "performance_sample_count"}
    verdict = judge_by("edge", replace(result, settings=settings))
    check = failed(verdict)["loaded_images"]
    assert (check.measured, check.margin) == (None, None)
    json.dumps(msgspec.to_builtins(verdict), allow_nan=False)


def test_advice_for_loadgens_own_verdict():
    assert advise_loadgen(make_result("Server")) == []
    (advice,) = advise_loadgen(make_result("Server", p99_ms=30.0))
    assert "CK_LOADGEN_TARGET_QPS" in advice
    (advice,) = advise_loadgen(make_result("Offline", duration_s=3.0, samples_per_second=222.5))
    assert "CK_LOADGEN_TARGET_QPS=223" in advice


def test_advice_makes_loadgen_content(real_run):
    """LoadGen ran out of queries; with the advised expectation it does not."""
    flags = {"SCENARIO": "SingleStream", "MODE": "PerformanceOnly", "DURATION": 0.3}
    first = read_result(real_run(TARGET_LATENCY=50, **flags).outcome.log_dir)
    assert not first.performance.is_valid
    (advice,) = advise_loadgen(first)
    name, _, value = advice.partition(":")[0].removeprefix("set CK_LOADGEN_").partition("=")
    second = read_result(real_run(**{name: value}, **flags).outcome.log_dir)
    assert second.performance.is_valid


def test_real_run_on_digits(real_run):
    run = real_run("onnx", SCENARIO="MultiStream", MODE="PerformanceOnly", MULTISTREAMNESS=30,
                   COUNT_OVERRIDE=100)  # fmt: skip
    result = read_result(run.outcome.log_dir)
    for verdict in judge(result, None, DIGITS.dataset, DIGITS.model, ENGINE):
        assert not verdict.valid
        assert {"duration_s", "loaded_images", "queries"} <= failed(verdict).keys()
