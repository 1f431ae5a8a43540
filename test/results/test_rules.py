import dataclasses
import json
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from ck_mlperf.common.files import hash_file
from ck_mlperf.models.recipe import load_model_recipe
from ck_mlperf.results.build import describe_model
from ck_mlperf.results.logs import read_result
from ck_mlperf.results.record import WeightsSource
from ck_mlperf.results.rules import NAMES, judge, list_checks, refuse_closed
from ck_mlperf.results.verdicts import Message

from ..builders.digits import PACKAGES
from ..builders.real_run import MODEL as DIGITS_MODEL
from ..builders.results import (
    DIGITS,
    ENGINE,
    GOOD,
    MLPERF_FILE,
    RESNET,
    RULES,
    WHOLE,
    failed,
    judge_by,
    make_accuracy,
    make_result,
)


def test_the_table_is_whole():
    assert RULES["version"] == 2
    used = {RULES["dataset"]["source"], RULES["model"]["source"]}
    entries = [rule for one in RULES["rounds"].values() for rule in one["checks"]]
    for rule in entries:
        assert len({"at_least", "at_most", "equal"} & rule.keys()) == 1
    for rule_set in RULES["rule_sets"]:
        assert rule_set["status"] in ("current", "historic")
        entries += rule_set["scenarios"].values()
        for scenario in rule_set["scenarios"]:
            assert list_checks(RULES, rule_set, scenario)
    for entry in entries:
        assert entry["section"]
        assert entry.get("metric", entry.get("result")) in NAMES
        used.add(entry["source"])
    assert used == set(RULES["sources"])
    ids = [rule_set["id"] for rule_set in RULES["rule_sets"]]
    assert ids == ["edge", "datacenter-edge", "datacenter", "v0.5"]


def test_lists_of_calibration_images(shared_data: Path):
    from ck_mlperf.images.dataset import hash_image_list

    for number, known in enumerate(RULES["model"]["calibration_lists"], 1):
        path = shared_data / "lists" / f"mlperf_cal_image_list_option_{number}.txt"
        names = sorted(line.split()[0] for line in path.read_text().splitlines())
        assert hash_image_list([(name, 0) for name in names]) == known["list_sha256"]


def test_mlperfs_file_is_what_the_package_downloads():
    meta = json.loads((PACKAGES / "model-onnx-resnet50" / ".cm" / "meta.json").read_text())
    environment = meta["customize"]["install_env"]
    assert environment["PACKAGE_HASH"] == f"md5:{MLPERF_FILE['md5']}"
    assert environment["PACKAGE_URL"] == MLPERF_FILE["url"]


def test_list_of_the_validation_set(shared_data: Path):
    from ck_mlperf.images.dataset import hash_image_list, parse_labels

    listed = parse_labels(shared_data / "lists" / "ILSVRC2012_val.txt")
    assert len(listed) == RULES["dataset"]["count"]
    assert hash_image_list(listed) == RULES["dataset"]["list_sha256"]


@pytest.mark.parametrize(
    ("scenario", "sets"),
    [
        ("SingleStream", ["edge", "datacenter-edge", "v0.5"]),
        ("MultiStream", ["edge", "datacenter-edge", "v0.5"]),
        ("Server", ["datacenter-edge", "datacenter", "v0.5"]),
        ("Offline", ["edge", "datacenter-edge", "datacenter", "v0.5"]),
    ],
)
def test_a_run_that_meets_everything(scenario, sets):
    verdicts = judge(make_result(scenario), GOOD, WHOLE, RESNET, ENGINE)
    assert [verdict.id for verdict in verdicts] == sets
    for verdict in verdicts:
        if verdict.id == "datacenter":  # a round with a LoadGen and seeds of its own
            assert failed(verdict).keys() == {"loadgen_of_round", "seeds_of_round"}
            continue
        assert not failed(verdict)
        assert not verdict.not_closed
        assert verdict.summary == "performance rules met; accuracy met"
        is_stand_in = (verdict.id, scenario) == ("v0.5", "MultiStream")
        assert verdict.valid != is_stand_in
        assert bool(verdict.stand_in) == is_stand_in
        assert verdict.result.value is not None


def test_datacenter_is_historic_and_has_its_own_seeds():
    verdict = judge_by("datacenter", make_result("Server", version="5.0.20"))
    assert (verdict.status, verdict.valid, verdict.also_needed) == ("historic", True, [])
    assert "v5.0" in verdict.note
    check = failed(judge_by("datacenter-edge", make_result("Server", version="5.0.20")))
    assert "mlcommons-loadgen 6.0.16 or newer" in check["loadgen_of_round"].advice
    assert "qsl_rng_seed is 6023615788873153749" in check["seeds_of_round"].advice


def test_what_a_submission_needs_besides():
    needed = judge_by("edge", make_result("Offline")).also_needed
    assert needed == [
        "performance and accuracy in SingleStream, MultiStream",
        "in the closed division TEST01 and TEST04 of each scenario",
    ]
    needed = judge_by("datacenter-edge", make_result("Offline")).also_needed
    assert "SingleStream, MultiStream, Server" in needed[0]
    other = replace(RESNET, source=WeightsSource("0" * 64, "1" * 32, None))
    assert len(judge_by("edge", make_result("Offline"), model=other).also_needed) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"network": "resnet50-v1"}, "is ResNet-50 v1, not v1.5: its 1x1 convolutions have"),
        ({"network": None}, "the network of any is not ResNet-50 v1.5"),
        ({"network": None, "source": None}, "not known whether the network of any is ResNet-50"),
        ({"source": None}, "not known which file"),
        ({"source": WeightsSource("0" * 64, "1" * 32, None)}, "the file's md5 is 1111"),
        ({"recipe": {"conversion": {"precision": "int8"}}}, "not calibrated with images of one"),
        (
            {
                "recipe": {"conversion": {"precision": "int8"}},
                "calibration_list": RULES["model"]["calibration_lists"][1]["title"],
            },
            None,
        ),
        ({"recipe": {"conversion": {"precision": "fp16"}}}, None),
    ],
)
def test_what_the_closed_division_takes(changes, reason):
    model = replace(RESNET, **changes)
    refused = refuse_closed(model)
    assert len(refused) >= 1 if reason else refused == []
    assert (reason or "") in "; ".join(refused)
    verdict = judge_by("edge", make_result("Offline"), model=model)
    of_the_network = "network" in changes
    assert verdict.valid != of_the_network
    assert verdict.not_closed == ([] if of_the_network else refused)


def describe(**changes):
    recipe = dataclasses.replace(load_model_recipe(DIGITS_MODEL), **changes)
    return describe_model(recipe, "a" * 64, "fp32")


def test_what_the_record_says_of_the_weights():
    """Of a plan or a converted file, what its source is."""
    md5 = MLPERF_FILE["md5"]
    plain = describe(source_md5=md5)
    assert plain.source == WeightsSource("a" * 64, md5, MLPERF_FILE["url"])
    assert plain.network == "resnet50-v1.5"  # the published file, however it was exported
    plain = describe()
    assert (plain.network, plain.source.url, plain.calibration_list) == (None, None, None)
    assert plain.source.md5 == hash_file(DIGITS_MODEL, "md5")
    (_, second) = RULES["model"]["calibration_lists"]
    calibration = {"source_list_sha256": second["list_sha256"], "count": 500}
    conversion = {"source_sha256": "b" * 64, "precision": "int8", "calibration": calibration}
    made = describe(conversion=conversion, source_md5=md5, network="resnet50-v1.5")
    assert (made.sha256, made.source.sha256) == ("a" * 64, "b" * 64)
    assert made.calibration_list == "MLPerf's calibration list, option 2"
    assert refuse_closed(made) == []
    other = {**conversion, "calibration": {"images_sha256": "c" * 64, "count": 500}}
    assert len(refuse_closed(describe(conversion=other, source_md5=md5))) == 1


@pytest.mark.parametrize("test", ["TEST01", "TEST04", "unknown"])
def test_a_compliance_run_is_no_result(test):
    same = {"performance_issue_same": True} if test == "TEST04" else {}
    result = replace(make_result("Offline", **same), compliance=test)
    verdict = judge_by("edge", result)
    assert not verdict.valid
    assert verdict.performance == "met"
    assert f"a compliance run ({test}) is a proof for another run" in verdict.unofficial[0]


def test_errors_in_an_accuracy_run():
    result = replace(make_result("Offline"), mode="AccuracyOnly", performance=None)
    verdict = judge_by("edge", replace(result, errors=[Message("Multiple conf", 1)]))
    assert verdict.accuracy == "not met"
    assert "Multiple conf" in failed(verdict)["accuracy_errors"].advice


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
        # What was asked for counts, not the time that passed.
        ("edge", "SingleStream", {"duration_s": 700.0, "min_duration_ms": 10_000},
         "min_duration_s", "min_duration was 10 s of 600 s: set CK_LOADGEN_DURATION=600"),
        ("edge", "Offline", {"performance_issue_unique": True}, "drawn_at_random", "issue_unique"),
        ("edge", "Offline", {"sample_concatenate_permutation": True}, "drawn_at_random",
         "take sample_concatenate_permutation out of user.conf"),
        ("edge", "Offline", {"schedule_rng_seed": 1}, "seeds_of_round",
         "schedule_rng_seed is 1, not the round's 16159082839903944936"),
        ("datacenter-edge", "Server", {"p99_ms": 16.5}, "p99_ms",
         "p99 is 16.5 ms, over the bound of 15 ms: lower CK_LOADGEN_TARGET_QPS to about 900"),
        ("datacenter-edge", "Server", {"p99_ms": 99.0, "samples_per_second": 700.0}, "p99_ms",
         "lower CK_LOADGEN_TARGET_QPS below 700, which is what it got done"),
        ("datacenter-edge", "Server", {"target_latency_ns": 20_000_000}, "latency_bound_ms",
         "CK_LOADGEN_TARGET_LATENCY=15"),
        ("v0.5", "MultiStream", {"p99_ms": 61.2, "samples_per_query": 30}, "p99_ms",
         "p99 is 61.2 ms, over the bound of 50 ms: "
         "lower CK_LOADGEN_MULTISTREAMNESS to about 24"),
        ("v0.5", "MultiStream", {"p99_ms": 500.0}, "p99_ms", "one sample alone takes longer"),
        ("v0.5", "MultiStream", {"queries": 1440}, "queries", "1,440 of 270,336"),
        ("v0.5", "SingleStream", {"queries": 1023}, "queries", "1,023 of 1,024"),
        ("v0.5", "SingleStream", {"duration_s": 59.0, "min_duration_ms": 0}, "duration_s",
         "CK_LOADGEN_DURATION=60"),
        ("v0.5", "Offline", {"duration_s": 59.0}, "duration_s", "CK_LOADGEN_TARGET_QPS=1000"),
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
    assert judge_by("datacenter-edge", make_result("Server", p99_ms=15.0)).valid
    result = make_result("Offline", samples_per_query=24_576)
    assert judge_by("edge", result).valid
    margins = {c.metric: c.margin for c in judge_by("edge", result).checks}
    assert margins["samples"] == 0
    assert margins["min_duration_s"] == 0


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
        ({"model": replace(RESNET, name="resnet50", network=None)}, "is not ResNet-50 v1.5"),
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
    verdict = judge_by("datacenter-edge", result)
    assert (verdict.valid, verdict.performance, verdict.checks) == (
        False, "not measured", verdict.checks[-1:],
    )  # fmt: skip


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


def test_real_run_on_digits(real_run):
    run = real_run("onnx", SCENARIO="MultiStream", MODE="PerformanceOnly", MULTISTREAMNESS=30,
                   COUNT_OVERRIDE=100)  # fmt: skip
    result = read_result(run.outcome.log_dir)
    for verdict in judge(result, None, DIGITS.dataset, DIGITS.model, ENGINE):
        assert not verdict.valid
        assert {"loaded_images", "queries"} <= failed(verdict).keys()
