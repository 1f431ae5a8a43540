import copy
import shlex

import pytest

from ck_mlperf.analyze.rows import check_types, find_precision, make_run
from ck_mlperf.common.errors import UserError

HOST_TAGS = ["64bits", "host-os-linux-64", "target-os-linux-64", "v1", "v1.32.0"]


def list_paths(value, path=()):
    """The path to each part of a record, as keys and indices."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        yield (*path, key)
        if isinstance(part, (dict, list)):
            yield from list_paths(part, (*path, key))


def find_holder(record, path):
    for key in path[:-1]:
        record = record[key]
    return record


def make(record):
    return make_run(record, "digits", "ckp-0.0001.json", 0)


def test_a_row_has_the_figures_of_its_record(record):
    run = make(record)
    assert (run.experiment, run.file, run.repetition) == ("digits", "ckp-0.0001.json", 0)
    assert (run.scenario, run.mode) == ("MultiStream", "SubmissionRun")
    assert run.samples_per_second == record["throughput"]["samples_per_second"]
    assert run.latency_p99_ns == record["latencies_ns"]["p99"]
    assert run.top1_percent == record["accuracy"]["top1_percent"]
    assert run.loadgen_valid is False
    assert run.invalid_reason.startswith("early stopping: Only processed 20 queries")
    assert (run.rules, run.rules_met) == ("edge", False)
    assert run.unofficial.startswith("the images are 500 of digits")
    assert (run.worst_check, run.worst_margin) == ("duration", pytest.approx(-0.9999, abs=1e-3))
    assert (run.batch, run.samples_per_query, run.target_qps) == (32, 8, None)
    assert run.start.utcoffset().total_seconds() == 0


def test_records_of_version_1_are_migrated(first_record, record):
    old, new = make(first_record), make(record)
    assert old.devices is None
    assert new.devices == 1
    assert old.explore_run is None
    assert (old.program, old.scenario, old.model) == (new.program, new.scenario, new.model)


def test_server_has_a_rate_and_a_bound(record):
    record["scenario"] = "Server"
    record["settings"]["loadgen"].update(
        server_target_qps=484.05, server_target_latency_ns=15_000_000
    )
    run = make(record)
    assert (run.target_qps, run.latency_bound_ms, run.samples_per_query) == (484.05, 15.0, 1)


def test_offline_is_no_other_configuration_where_a_run_was_longer(record):
    record["scenario"] = "Offline"
    assert make(record).samples_per_query is None


def test_the_readings_of_gpus(record):
    reading = {"min": 1, "median": 2, "max": 3}
    unknown = dict.fromkeys(
        [
            *("sm_clock_mhz", "memory_clock_mhz", "temperature_c", "power_w"),
            *("utilization_percent", "clocks_event_reasons"),
            *("other_processes_before", "other_processes_after"),
        ]
    )
    known = {"cuda_device": 0, "samples": 9, "busy_samples": 8, **unknown}
    heat = {"sw_thermal_slowdown": 4}
    record["conditions"]["gpus"] = [
        {**known, "sm_clock_mhz": {**reading, "median": 1500}, "clocks_event_reasons": heat},
        {**known, "cuda_device": 1, "sm_clock_mhz": {**reading, "median": 1410}},
        {**known, "cuda_device": 2, "temperature_c": {**reading, "max": 91}},
    ]
    run = make(record)
    assert (run.sm_clock_mhz, run.temperature_c) == (1410, 91)
    assert run.disturbance_kinds == ("gpu_heat",)
    assert "heat lowered GPU 0's clocks in 4 of 8 samples" in run.disturbances[0]


def test_the_command_repeats_what_the_user_gave(record):
    ours = record["settings"]["ours"]
    for setting in ours.values():
        setting["origin"] = "default"
    ours["CK_BATCH_SIZE"] = {"value": 16, "origin": "env"}
    ours["CK_CUDA_DEVICES"] = {"value": [0, 1], "origin": "env"}
    ours["CK_SILENT_MODE"] = {"value": True, "origin": "env"}
    ours["CK_LOADGEN_CONF_FILE"] = {"value": "mine; rm -rf.conf", "origin": "env"}
    ours["CK_EXPLORE_RUN"] = {"value": "sweep-1", "origin": "env"}
    record["deps"] = [
        {
            "key": "weights",
            "tags": ["model", "onnx", "fp16", *HOST_TAGS],
            "version": "1",
            "uoa": "",
        },
        {"key": "images", "tags": ["dataset", "first.500"], "version": "", "uoa": ""},
    ]
    record["engine"]["name"] = "onnxruntime-cuda"
    run = make(record)
    assert shlex.split(run.command) == [
        "ck",
        "benchmark",
        "program:image-classification",
        "--repetitions=1",
        "--env.CK_BATCH_SIZE=16",
        "--env.CK_CUDA_DEVICES=0,1",
        "--env.CK_LOADGEN_CONF_FILE=mine; rm -rf.conf",
        "--env.CK_SILENT_MODE=yes",
        "--dep_add_tags.weights=device.cuda,fp16,model,onnx",
        "--dep_add_tags.images=first.500",
        "--skip_print_timers",
    ]
    assert run.explore_run == "sweep-1"
    assert run.precision == "fp16"


def test_the_programs_own_user_conf_is_left_to_ck(record):
    record["settings"]["ours"]["CK_LOADGEN_CONF_FILE"] = {"value": "user.conf", "origin": "env"}
    assert "CONF_FILE" not in make(record).command


def test_precision_by_tags():
    assert find_precision(["model", "int8"]) == "int8"
    assert find_precision(["model"]) == "fp32"


@pytest.mark.parametrize("wrong", [None, "text", -1, True, [], {}, "missing"])
def test_whatever_is_wrong_with_a_record_is_an_error_or_a_row_of_the_right_types(record, wrong):
    refused = 0
    for path in list(list_paths(record)):
        broken = copy.deepcopy(record)
        if wrong == "missing":
            del find_holder(broken, path)[path[-1]]
        else:
            find_holder(broken, path)[path[-1]] = wrong
        try:
            run = make(broken)
        except UserError:
            refused += 1
        else:
            check_types(run)
    assert refused > 30


@pytest.mark.parametrize(
    ("start", "said"), [("yesterday", "ValueError"), ("2026-03-01T10:30:00", "no time zone")]
)
def test_a_time_that_is_none(record, start, said):
    record["timing"]["start"] = start
    with pytest.raises(UserError, match=said):
        make(record)


@pytest.mark.parametrize(
    ("part", "name"),
    [("throughput", "samples_per_second"), ("engine", "batch"), ("counts", "queries")],
)
@pytest.mark.parametrize("wrong", [0, -1, 10**30, 1e300, float("inf"), float("nan")])
def test_figures_that_cannot_be(record, part, name, wrong):
    record[part][name] = wrong
    with pytest.raises(UserError, match="no record of a run"):
        make_run(record, "x", "ckp-0.0001.json", 0)


def test_a_latency_that_cannot_be(record):
    record["latencies_ns"]["p50"] = 0
    with pytest.raises(UserError, match="latency_p50_ns is 0"):
        make_run(record, "x", "ckp-0.0001.json", 0)
