import dataclasses
import json
import shlex
from pathlib import Path

import msgspec
import pytest

from ck_mlperf.analyze.points import identify_point
from ck_mlperf.analyze.rows import make_run, read_runs
from ck_mlperf.analyze.runs import Run, group_points
from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.job import NOT_RECORDED
from ck_mlperf.models.precisions import find_precision
from ck_mlperf.results.experiments import ExperimentFile
from ck_mlperf.results.migrate import read_record

from ..builders.records import FAILURE, find_holder, list_paths, make_json, make_record

FILE = ExperimentFile("digits", Path("ckp-0.0001.json"))
HOST_TAGS = ["64bits", "host-os-linux-64", "target-os-linux-64", "v1", "v1.32.0"]


def make(*args, **changes):
    """The row of a record with changes."""
    return make_run(make_record(*args, **changes), FILE, 0)


def test_runs_are_read_in_the_order_of_names_and_files(save_point, tmp_path):
    save_point(make_json(), experiment="b")
    save_point(make_json(), make_json(1), experiment="a")
    runs = read_runs([tmp_path / "local"])
    assert [(run.experiment, run.file, run.repetition) for run in runs] == [
        ("a", "ckp-0000000000000002.0001.json", 0),
        ("a", "ckp-0000000000000002.0001.json", 1),
        ("b", "ckp-0000000000000001.0001.json", 0),
    ]


def test_other_programs_are_counted(save_point, tmp_path, capsys):
    save_point(make_json())
    save_point({"execution_time": 1.5}, experiment="theirs")
    save_point(experiment="nothing")
    path = save_point(experiment="a list")
    path.write_text("[1, 2]")
    assert len(read_runs([tmp_path / "local"])) == 1
    assert capsys.readouterr().err == "3 files were passed over, of other programs\n"


def test_a_failed_repetition_leaves_the_others(save_point, tmp_path):
    save_point({"run_success": "no"}, make_json())
    (run,) = read_runs([tmp_path / "local"])
    assert run.repetition == 1


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            {"schema_version": 3},
            "not a record of a run of version 3: Object missing required field",
        ),
        (make_json(latencies_ns={"p50": 0}), "not a record of a run: latency_p50_ns is 0"),
    ],
)
def test_bad_records_are_named_and_passed_over(save_point, tmp_path, capsys, record, said):
    save_point(make_json())
    path = save_point(record)
    assert len(read_runs([tmp_path / "local"])) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"passed over: {path}: {said}")
    assert second == "1 record was passed over, which could not be read"


def test_a_run_of_a_sweep_that_failed(save_point, tmp_path):
    entry = save_point(make_json()).parent
    (entry / "failed-a1b2-3.json").write_text(json.dumps(FAILURE))
    measured, failed = read_runs([tmp_path / "local"])
    assert measured.error is None
    assert failed.error == "error: no plan for this GPU"
    assert failed.explore_run == "a1b2-3"
    assert (failed.scenario, failed.mode, failed.precision) == ("Server", "AccuracyOnly", "int8")
    assert failed.samples_per_query is None
    assert failed.command == (
        "ck benchmark program:image-classification-tensorrt-loadgen-py --repetitions=1 "
        "--env.CK_LOADGEN_SCENARIO=Server "
        "--dep_add_tags.weights=int8,maxbatch.8,model,resnet,tensorrt --skip_print_timers"
    )


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"environment": {"CK_BATCH_SIZE": "many"}}, {"wall_s": 1e300}]
)
def test_a_note_of_a_failure_that_is_none(save_point, tmp_path, capsys, change):
    path = save_point(make_json()).with_name("failed-1.json")
    path.write_text(json.dumps({**FAILURE, **change}))
    assert len(read_runs([tmp_path / "local"])) == 1
    assert f"{path}: not a note of a failed run: " in capsys.readouterr().err


def test_a_row_has_the_figures_of_its_record():
    record, run = make_record(), make()
    assert (run.experiment, run.file, run.repetition) == ("digits", "ckp-0.0001.json", 0)
    assert (run.scenario, run.mode) == ("MultiStream", "SubmissionRun")
    assert run.samples_per_second == record.samples_per_second
    assert run.queries_per_second == record.throughput.queries_per_second
    assert (run.queries, run.samples) == (record.counts.queries, record.counts.samples)
    assert run.latency_p99_ns == record.latencies_ns.p99
    assert run.early_stopped_p99_ns == record.early_stopped_ns.p99
    assert run.top1_percent == record.accuracy.top1_percent
    assert run.loadgen_valid is False
    assert run.invalid_reason.startswith("early stopping: Only processed 20 queries")
    assert (run.rules, run.rules_met) == ("edge", False)
    assert run.unofficial.startswith("the images are 500 of digits")
    assert (run.worst_check, run.worst_margin) == ("duration", pytest.approx(-0.9999, abs=1e-3))
    assert (run.batch, run.samples_per_query, run.target_qps) == (32, 8, None)
    assert run.start.utcoffset().total_seconds() == 0


def test_a_row_of_what_was_not_measured():
    measured = ("latencies_ns", "early_stopped_ns", "throughput", "counts", "accuracy")
    run = make(**dict.fromkeys(measured))
    assert run.latency_p99_ns is run.early_stopped_p99_ns is run.samples_per_second is None
    assert run.queries is run.top1_percent is None


def test_records_of_version_1_are_migrated():
    old, new = make(1), make()
    assert old.devices is None
    assert new.devices == 1
    assert old.explore_run is None
    assert (old.program, old.scenario, old.model) == (new.program, new.scenario, new.model)


def test_server_has_a_rate_and_a_bound():
    loadgen = {"server_target_qps": 484.05, "server_target_latency_ns": 15_000_000}
    run = make(scenario="Server", settings={"loadgen": loadgen})
    assert (run.target_qps, run.latency_bound_ms, run.samples_per_query) == (484.05, 15.0, 1)


def test_offline_is_no_other_configuration_where_a_run_was_longer():
    assert make(scenario="Offline").samples_per_query is None


def test_the_readings_of_gpus():
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
    gpus = [
        {**known, "sm_clock_mhz": {**reading, "median": 1500}, "clocks_event_reasons": heat},
        {**known, "cuda_device": 1, "sm_clock_mhz": {**reading, "median": 1410}},
        {**known, "cuda_device": 2, "temperature_c": {**reading, "max": 91}},
    ]
    run = make(conditions={"gpus": gpus})
    assert (run.sm_clock_mhz, run.temperature_c) == (1410, 91)
    assert run.disturbance_kinds == ("gpu_heat",)
    assert "heat lowered GPU 0's clocks in 4 of 8 samples" in run.disturbances[0]


def test_the_command_repeats_what_the_user_gave():
    given = {
        "CK_BATCH_SIZE": 16,
        "CK_CUDA_DEVICES": [0, 1],
        "CK_SILENT_MODE": True,
        "CK_LOADGEN_CONF_FILE": "my own.conf",
        "CK_EXPLORE_RUN": "sweep-1",
    }
    defaults = {name: {"origin": "default"} for name in make_json()["settings"]["ours"]}
    ours = defaults | {name: {"value": value, "origin": "env"} for name, value in given.items()}
    weights = ["model", "onnx", "fp16", *HOST_TAGS]
    deps = [
        {"key": "weights", "tags": weights, "version": "1", "uoa": ""},
        {"key": "images", "tags": ["dataset", "first.500"], "version": "", "uoa": ""},
    ]
    passed = {"OMP_NUM_THREADS": "2", "MY_TOKEN": NOT_RECORDED}
    settings = {"ours": ours, "passed": passed}
    run = make(settings=settings, deps=deps, engine={"name": "onnxruntime-cuda"})
    assert shlex.split(run.command) == [
        "ck",
        "benchmark",
        "program:image-classification",
        "--repetitions=1",
        "--env.CK_BATCH_SIZE=16",
        "--env.CK_CUDA_DEVICES=0,1",
        "--env.CK_LOADGEN_CONF_FILE=my own.conf",
        "--env.CK_SILENT_MODE=yes",
        "--env.OMP_NUM_THREADS=2",
        "--dep_add_tags.weights=device.cuda,fp16,model,onnx",
        "--dep_add_tags.images=first.500",
        "--skip_print_timers",
    ]
    assert run.explore_run == "sweep-1"
    assert run.precision == "fp16"


def test_the_programs_own_user_conf_is_left_to_ck():
    own = {"value": "user.conf", "origin": "env"}
    assert "CONF_FILE" not in make(settings={"ours": {"CK_LOADGEN_CONF_FILE": own}}).command


def test_precision_by_tags():
    assert find_precision(["model", "int8"]) == "int8"
    assert find_precision(["model"]) == "fp32"


@pytest.mark.parametrize("start", ["yesterday", "2026-03-01T10:30:00", "2026-99-01T10:30:00+00:00"])
def test_a_time_that_is_none(start):
    with pytest.raises(UserError, match="not a record of a run"):
        make(timing={"start": start})


@pytest.mark.parametrize(
    ("part", "name"),
    [("throughput", "samples_per_second"), ("engine", "batch"), ("counts", "queries")],
)
@pytest.mark.parametrize("wrong", [0, -1, 10**30, 1e300, float("inf"), float("nan")])
def test_figures_that_cannot_be(save_point, tmp_path, capsys, part, name, wrong):
    record = make_json()
    record[part][name] = wrong
    save_point(record)
    assert read_runs([tmp_path / "local"]) == []
    assert "not a record of a run" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["many", True])
def test_a_setting_of_loadgen_that_is_no_number(wrong):
    with pytest.raises(UserError, match=r"settings\.loadgen\.server_target_qps is no number"):
        make(scenario="Server", settings={"loadgen": {"server_target_qps": wrong}})


@pytest.mark.parametrize("wrong", [None, "text", -1, True, [], {}, "missing"])
def test_whatever_is_wrong_with_a_record_is_an_error_or_a_row_of_the_right_types(wrong):
    refused = 0
    for path in list_paths(make_json()):
        record = make_json()
        holder = find_holder(record, path)
        if wrong == "missing":
            del holder[path[-1]]
        else:
            holder[path[-1]] = wrong
        try:
            read = read_record(json.dumps(record).encode())
            run = make_run(read, FILE, 0) if read else None
        except UserError:
            refused += 1
        else:
            assert run is None or msgspec.convert(dataclasses.asdict(run), Run) == run
    assert refused > 30


def test_a_compliance_test_is_called_one():
    assert make(verdicts={"loadgen": {"compliance": "TEST04"}}).compliance == "TEST04"
    assert make().compliance is None


def test_repetitions_are_told_apart(save_point, tmp_path):
    """Each in a file of its own, as a sweep records them, or several in one."""
    starts = [f"2026-03-01T10:30:0{second}+00:00" for second in (5, 1, 3)]
    one, two, three = (make_json(timing={"start": start}) for start in starts)
    accuracy = make_json(mode="AccuracyOnly", throughput=None)
    save_point(one, two)
    save_point(three, accuracy)
    save_point(make_json(engine={"batch": 4}))
    runs = read_runs([tmp_path / "local"])
    assert [run.number for run in runs] == [3, 1, 2, None, 1]
    assert runs[0].point == runs[1].point == runs[2].point != runs[4].point
    assert runs[3].point is None
    assert [run.label for run in runs[:2]] == [
        "digits, run 3, 2026-03-01 10:30:05 UTC",
        "digits, run 1, 2026-03-01 10:30:01 UTC",
    ]
    assert len({run.label for run in runs[:3]}) == 3
    points = group_points(runs)
    assert {identify_point(point) for point in points} == {runs[0].point, runs[4].point}
    assert sorted(run.number for point in points for run in point.runs) == [1, 1, 2, 3]


def test_the_settings_of_a_run():
    assert make().settings == "CK_LOADGEN_COUNT_OVERRIDE=20"
    deps = make_json()["deps"]
    deps[0]["tags"] = ["model", "tensorrt", "maxbatch.8", "v10.3"]
    run = make(deps=deps, settings={"passed": {"OMP_NUM_THREADS": "2", "TOKEN": NOT_RECORDED}})
    assert run.settings == "CK_LOADGEN_COUNT_OVERRIDE=20 OMP_NUM_THREADS=2 maxbatch.8"
