import dataclasses
import getpass
import json
import socket
from datetime import datetime, timedelta, timezone
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import ck_mlperf.results.record as record_module
from ck_mlperf.images.recipe import ASPECTS, CHANNEL_ORDERS, INTERPOLATIONS
from ck_mlperf.loadgen.one_test import DeviceCounts
from ck_mlperf.loadgen.settings import VARIABLES
from ck_mlperf.machine.environment import describe_environment
from ck_mlperf.models.recipe import load_model_recipe
from ck_mlperf.results.accuracy import measure_accuracy
from ck_mlperf.results.logs import read_answers, read_result
from ck_mlperf.results.migrate import migrate
from ck_mlperf.results.record import (
    build_record,
    describe_dataset,
    describe_engine,
    describe_model,
    write_record,
)
from ck_mlperf.results.report import format_report

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads(Path(record_module.__file__).with_name("record.schema.json").read_text())
MODEL = ROOT / "package" / "model-onnx-digits" / "digits.onnx"
START = datetime(2026, 3, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))
DEPS = [{"key": "weights", "tags": ["model", "onnx"], "version": "1", "uoa": "0123456789abcdef"}]


def make_record(run) -> dict:
    recipe = load_model_recipe(MODEL)
    result = read_result(run.outcome.log_dir)
    accuracy = None
    if result.mode in ("AccuracyOnly", "SubmissionRun"):
        answers = read_answers(run.outcome.log_dir)
        labels = np.arange(500, dtype=np.int32) % 10
        repeats = result.scenario == "MultiStream"
        accuracy = measure_accuracy(answers, labels, run.outcome.top5, repeats)
    manifest = {
        "format": 1,
        "dataset": "digits",
        "count": 500,
        "recipe": recipe.image.to_dict(),
        "images_sha256": "1" * 64,
        "labels_sha256": "2" * 64,
        "source_list_sha256": "3" * 64,
        "opencv": "4.10.0",
    }
    return build_record(
        program="image-classification",
        outcome=run.outcome,
        result=result,
        accuracy=accuracy,
        engine=run.engine,
        model=describe_model(recipe, "0" * 64),
        dataset=describe_dataset(manifest, 500),
        environment=describe_environment(ROOT),
        deps=DEPS,
        start=START,
    )


def validate(record: dict) -> None:
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(SCHEMA, format_checker=checker).validate(record)


RUNS = [
    ("null", {"SCENARIO": scenario, "MODE": mode, "TARGET_QPS": 500, "DURATION": 0.1})
    for scenario in ("Server", "Offline")
    for mode in ("PerformanceOnly", "SubmissionRun")
] + [
    ("null", {"SCENARIO": "SingleStream", "MODE": "PerformanceOnly", "COUNT_OVERRIDE": 1}),
    ("null", {"SCENARIO": "MultiStream", "MODE": "AccuracyOnly"}),
    ("onnx", {"SCENARIO": "MultiStream", "MODE": "SubmissionRun", "COUNT_OVERRIDE": 20}),
    ("onnx", {"SCENARIO": "Offline", "MODE": "AccuracyOnly"}),
]


@pytest.mark.parametrize(("kind", "variables"), RUNS)
def test_real_records_meet_the_schema(real_run, kind, variables):
    record = make_record(real_run(kind, **variables))
    validate(json.loads(json.dumps(record, allow_nan=False)))
    assert (record["scenario"], record["mode"]) == (variables["SCENARIO"], variables["MODE"])
    assert (record["accuracy"] is None) == (record["mode"] == "PerformanceOnly")
    assert (record["latencies_ns"] is None) == (record["mode"] == "AccuracyOnly")
    assert not any(verdict["valid"] for verdict in record["verdicts"]["rules"])
    assert {log["file"] for log in record["logs"]} == {
        "mlperf_log_accuracy.json",
        "mlperf_log_detail.txt",
        "mlperf_log_summary.txt",
    }


def test_the_schema_itself():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"].endswith("2020-12/schema")
    assert set(SCHEMA["required"]) == set(SCHEMA["properties"])
    ours = SCHEMA["properties"]["settings"]["properties"]["ours"]["properties"]
    assert list(ours) == [variable.name for variable in VARIABLES]
    recipe = SCHEMA["properties"]["dataset"]["properties"]["recipe"]["properties"]
    for name, known in (
        ("interpolation", INTERPOLATIONS),
        ("channels", CHANNEL_ORDERS),
        ("aspect", ASPECTS),
    ):
        assert recipe[name]["enum"] == list(known)


def test_the_schema_is_strict(real_run):
    record = make_record(real_run("null", **RUNS[0][1]))
    for change in (
        {"surprise": 1},
        {"schema_version": 1},
        {"latencies_ns": record["latencies_ns"] | {"p12": 1}},
        {"throughput": record["throughput"] | {"samples_per_second": "many"}},
        {"deps": [{"key": "weights"}]},
        {"logs": [{"file": "/tmp/a", "sha256": "0" * 64, "bytes": 1}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            validate(record | change)
    del record["timing"]
    with pytest.raises(jsonschema.ValidationError):
        validate(record)


def test_what_a_record_says(real_run):
    record = make_record(real_run("onnx", **RUNS[6][1]))
    assert record["schema_version"] == 2
    assert record["counts"] == {"queries": 20, "samples": 160, "samples_per_query": 8}
    assert record["accuracy"]["total"] == 500
    assert record["accuracy"]["top5_percent"] >= record["accuracy"]["top1_percent"]
    assert record["accuracy"]["top1_percent"] == record["accuracy"]["good"] / 5
    assert record["engine"]["name"] == "onnxruntime-cpu"
    assert record["engine"]["batch"] == 32
    assert record["settings"]["loadgen"]["min_query_count"] == 20
    ours = record["settings"]["ours"]
    assert ours["CK_LOADGEN_COUNT_OVERRIDE"] == {"value": 20, "origin": "env"}
    assert ours["CK_LOADGEN_DATASET_SIZE"] == {"value": 500, "origin": "default"}
    assert ours["CK_LOADGEN_TARGET_QPS"] == {"value": None, "origin": "default"}
    assert record["timing"]["start"] == "2026-03-01T10:30:00+00:00"
    assert record["timing"]["wall_s"] > record["timing"]["performance_s"] > 0
    assert record["deps"] == DEPS


@pytest.mark.parametrize(("kind", "variables"), RUNS)
def test_what_each_device_did(real_run, kind, variables):
    record = make_record(real_run(kind, **variables))
    (device,) = record["engine"]["devices"]
    assert device["device"] == record["engine"]["device"]
    assert 1 <= device["batches"] <= device["samples"]
    if record["counts"]:
        assert device["samples"] == record["counts"]["samples"]
        assert device["samples_per_second"] == record["throughput"]["samples_per_second"]
    else:
        assert device["samples"] >= 500
        assert device["samples_per_second"] is None


def test_several_devices_share_the_throughput(real_run):
    run = real_run("onnx", **RUNS[6][1])
    shares = (DeviceCounts("GPU 0", 120, 5), DeviceCounts("GPU 1", 40, 3))
    outcome = dataclasses.replace(run.outcome, devices=shares)
    record = make_record(dataclasses.replace(run, outcome=outcome))
    validate(record)
    first, second = record["engine"]["devices"]
    assert (first["device"], first["samples"], first["batches"]) == ("GPU 0", 120, 5)
    assert first["samples_per_second"] == pytest.approx(3 * second["samples_per_second"])
    assert first["samples_per_second"] + second["samples_per_second"] == pytest.approx(
        record["throughput"]["samples_per_second"]
    )


def test_named_devices_are_settings(real_run):
    run = real_run("null", **RUNS[0][1])
    settings = dataclasses.replace(run.outcome.settings, cuda_devices=(0, 1))
    outcome = dataclasses.replace(run.outcome, settings=settings)
    record = make_record(dataclasses.replace(run, outcome=outcome))
    assert record["settings"]["ours"]["CK_CUDA_DEVICES"] == {"value": [0, 1], "origin": "default"}
    validate(record)
    record["settings"]["ours"]["CK_CUDA_DEVICES"]["value"] = "some"
    with pytest.raises(jsonschema.ValidationError):
        validate(record)


@pytest.mark.parametrize("path", sorted((ROOT / "test/data/records").glob("version-*.json")))
def test_records_of_any_version_can_be_read(path):
    record = migrate(json.loads(path.read_text()))
    validate(record)
    format_report(record)


def test_user_conf_is_named_without_its_folder(real_run, tmp_path):
    conf = tmp_path / "user.conf"
    conf.write_text("*.Offline.min_duration = 50\n")
    run = real_run(SCENARIO="Offline", MODE="PerformanceOnly", CONF_FILE=conf)
    record = make_record(run)
    validate(record)
    assert record["settings"]["user_conf"]["file"] == "user.conf"
    assert len(record["settings"]["user_conf"]["sha256"]) == 64
    assert record["settings"]["ours"]["CK_LOADGEN_CONF_FILE"]["value"] == "user.conf"
    assert str(tmp_path) not in json.dumps(record)


def test_a_record_names_no_host_user_or_path(real_run):
    text = json.dumps(make_record(real_run("onnx", **RUNS[7][1])))
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert '"/' not in text
    assert str(ROOT) not in text


def test_a_record_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_record({"a": 1}, path)
    assert json.loads(path.read_text()) == {"a": 1}
    with pytest.raises(ValueError, match="JSON"):
        write_record({"a": float("nan")}, path)

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_record({"a": 2}, path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_describe_engine():
    @dataclasses.dataclass
    class Opened:
        name: str = "tensorrt"
        version: str = "10.3"
        device: str = "NVIDIA H100"

    described = describe_engine([Opened()], 32)
    assert described == dataclasses.asdict(Opened()) | {"batch": 32}
    three = [Opened(), Opened(device="NVIDIA L4"), Opened()]
    assert describe_engine(three, 32)["device"] == "2 x NVIDIA H100, NVIDIA L4"
