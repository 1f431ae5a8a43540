import dataclasses
import getpass
import json
import os
import re
import socket

import jsonschema
import msgspec
import pytest
from msgspec.structs import replace

from ck_mlperf.common.docstrings import read_field_docs
from ck_mlperf.images.recipe import ASPECTS, CHANNEL_ORDERS, INTERPOLATIONS
from ck_mlperf.loadgen.one_test import DeviceCounts
from ck_mlperf.loadgen.settings import MODES, SCENARIOS, VARIABLES
from ck_mlperf.machine.environment import describe_environment
from ck_mlperf.results.build import describe_engine, write_record
from ck_mlperf.results.migrate import read_record
from ck_mlperf.results.record import SCHEMA_VERSION

from ..builders.real_run import DEPS, ROOT, build_real_record
from ..builders.records import list_structs, make_json, make_record


@pytest.fixture
def validate(record_schema):
    """Raises jsonschema.ValidationError where a record's JSON is not as the schema has it."""
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return jsonschema.Draft202012Validator(record_schema, format_checker=checker).validate


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
def test_real_records_meet_the_schema(real_run, kind, variables, validate, tmp_path):
    record = build_real_record(real_run(kind, **variables))
    write_record(record, tmp_path / "record.json")
    text = (tmp_path / "record.json").read_bytes()
    validate(json.loads(text))
    assert read_record(text) == record
    assert (record.scenario, record.mode) == (variables["SCENARIO"], variables["MODE"])
    assert (record.accuracy is None) == (record.mode == "PerformanceOnly")
    assert (record.latencies_ns is None) == (record.mode == "AccuracyOnly")
    assert not any(verdict.valid for verdict in record.verdicts.rules)
    assert list(record.settings.ours) == [variable.name for variable in VARIABLES]
    assert {log.file for log in record.logs} == {
        "mlperf_log_accuracy.json",
        "mlperf_log_detail.txt",
        "mlperf_log_summary.txt",
    }


def test_what_the_machine_says_is_recorded_as_it_is(real_run):
    run = real_run("null", **RUNS[0][1])
    record = build_real_record(run)
    assert msgspec.to_builtins(record.environment) == describe_environment(ROOT)
    assert msgspec.to_builtins(record.conditions) == run.outcome.conditions


def test_the_schema_itself(record_schema):
    jsonschema.Draft202012Validator.check_schema(record_schema)
    assert record_schema["$schema"].endswith("2020-12/schema")
    assert set(record_schema["required"]) == set(record_schema["properties"]) - {
        "accuracy_run",
        "run_id",
    }
    properties = {name: part["properties"] for name, part in record_schema["$defs"].items()}
    assert record_schema["properties"]["scenario"]["enum"] == sorted(SCENARIOS)
    assert record_schema["properties"]["mode"]["enum"] == sorted(MODES)
    for name, known in (
        ("interpolation", INTERPOLATIONS),
        ("channels", CHANNEL_ORDERS),
        ("aspect", ASPECTS),
    ):
        assert properties["Preprocessing"][name]["enum"] == sorted(known)
    assert "null" in record_schema["description"]
    assert properties["Latencies"]["p99"]["unit"] == "ns"
    assert properties["Latencies"]["p99"]["description"] == "The 99th percentile."
    ours = properties["Settings"]["ours"]["properties"]
    assert {name: part["description"] for name, part in ours.items()} == {
        variable.name: variable.help for variable in VARIABLES
    }


def test_each_field_is_described():
    """Under the field, or where its type is a part of the record, under that."""
    described = set()

    def check(cls):
        docs = {}
        for base in cls.__mro__[: cls.__mro__.index(msgspec.Struct)]:
            assert base.__doc__
            docs |= read_field_docs(base)
        for field in msgspec.structs.fields(cls):
            parts = list_structs(msgspec.inspect.type_info(field.type))
            assert docs.get(field.name) or parts, f"{cls.__name__}.{field.name}"
            for part in parts:
                check(part)
        described.add(cls)

    check(type(make_record()))
    assert len(described) > 30


@pytest.mark.parametrize(
    "change",
    [
        {"surprise": 1},
        {"schema_version": 1},
        {"latencies_ns": {"p12": 1}},
        {"throughput": {"samples_per_second": "many"}},
        {"deps": [{"key": "weights"}]},
        {"logs": [{"file": "/tmp/a", "sha256": "0" * 64, "bytes": 1}]},
        {"settings": {"ours": {"CK_CUDA_DEVICES": {"value": {}, "origin": "env"}}}},
        {"settings": {"ours": {"CK_OTHER": {"value": 1, "origin": "env"}}}},
    ],
)
def test_the_schema_is_strict(change, validate):
    validate(make_json())
    with pytest.raises(jsonschema.ValidationError):
        validate(make_json(**change))


def test_the_schema_wants_every_part(validate):
    record = make_json()
    del record["timing"]
    with pytest.raises(jsonschema.ValidationError):
        validate(record)


def test_what_a_record_says(real_run):
    record = build_real_record(real_run("onnx", **RUNS[6][1]))
    assert record.schema_version == SCHEMA_VERSION
    counts = record.counts
    assert (counts.queries, counts.samples, counts.samples_per_query) == (20, 160, 8)
    assert record.accuracy.total == 500
    assert record.accuracy.top5_percent >= record.accuracy.top1_percent
    assert record.accuracy.top1_percent == record.accuracy.good / 5
    assert record.engine.name == "onnxruntime-cpu"
    assert record.engine.batch == 32
    session = record.engine.options["session"]
    assert session["intra_op_num_threads"] == len(os.sched_getaffinity(0))
    assert session["graph_optimization_level"] == "ORT_ENABLE_ALL"
    assert list(record.engine.options["providers"]) == ["CPUExecutionProvider"]
    assert re.fullmatch("[0-9a-f]{10}", record.verdicts.loadgen.revision)
    assert record.settings.loadgen["min_query_count"] == 20
    ours = {name: (setting.value, setting.origin) for name, setting in record.settings.ours.items()}
    assert ours["CK_LOADGEN_COUNT_OVERRIDE"] == (20, "env")
    assert ours["CK_LOADGEN_DATASET_SIZE"] == (500, "default")
    assert ours["CK_LOADGEN_TARGET_QPS"] == (None, "default")
    assert record.timing.start == "2026-03-01T10:30:00+00:00"
    assert record.timing.wall_s > record.timing.performance_s > 0
    assert msgspec.to_builtins(record.deps) == DEPS


@pytest.mark.parametrize(("kind", "variables"), RUNS)
def test_what_each_device_did(real_run, kind, variables):
    record = build_real_record(real_run(kind, **variables))
    (device,) = record.engine.devices
    assert device.device == record.engine.device
    assert 1 <= device.batches <= device.samples
    if record.counts:
        assert device.samples == record.counts.samples
        assert device.samples_per_second == record.samples_per_second
    else:
        assert device.samples >= 500
        assert device.samples_per_second is record.samples_per_second is None


def test_several_devices_share_the_throughput(real_run):
    run = real_run("onnx", **RUNS[6][1])
    shares = (DeviceCounts("GPU 0", 120, 5), DeviceCounts("GPU 1", 40, 3))
    outcome = dataclasses.replace(run.outcome, devices=shares)
    record = build_real_record(dataclasses.replace(run, outcome=outcome))
    first, second = record.engine.devices
    assert (first.device, first.samples, first.batches) == ("GPU 0", 120, 5)
    assert first.samples_per_second == pytest.approx(3 * second.samples_per_second)
    assert first.samples_per_second + second.samples_per_second == pytest.approx(
        record.samples_per_second
    )


def test_named_devices_are_settings(real_run, validate):
    run = real_run("null", **RUNS[0][1])
    settings = dataclasses.replace(run.outcome.settings, cuda_devices=(0, 1))
    outcome = dataclasses.replace(run.outcome, settings=settings)
    record = build_real_record(dataclasses.replace(run, outcome=outcome))
    setting = record.settings.ours["CK_CUDA_DEVICES"]
    assert (setting.value, setting.origin) == ([0, 1], "default")
    validate(msgspec.to_builtins(record))


def test_user_conf_is_named_without_its_folder(real_run, tmp_path):
    conf = tmp_path / "user.conf"
    conf.write_text("*.Offline.min_duration = 50\n")
    record = build_real_record(real_run(SCENARIO="Offline", MODE="PerformanceOnly", CONF_FILE=conf))
    assert record.settings.user_conf.file == "user.conf"
    assert len(record.settings.user_conf.sha256) == 64
    assert record.settings.ours["CK_LOADGEN_CONF_FILE"].value == "user.conf"
    assert str(tmp_path) not in msgspec.json.encode(record).decode()


def test_a_record_names_no_host_user_or_path(real_run):
    text = msgspec.json.encode(build_real_record(real_run("onnx", **RUNS[7][1]))).decode()
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert '"/' not in text
    assert str(ROOT) not in text


def test_a_record_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    record = make_record()
    write_record(record, path)
    assert read_record(path.read_bytes()) == record
    with pytest.raises(ValueError, match="JSON"):
        write_record(replace(record, timing=replace(record.timing, wall_s=float("nan"))), path)

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_record(make_record(1), path)
    assert read_record(path.read_bytes()) == record
    assert list(tmp_path.iterdir()) == [path]


def test_describe_engine():
    @dataclasses.dataclass
    class Opened:
        name: str = "tensorrt"
        version: str = "10.3"
        device: str = "NVIDIA H100"
        options: dict = dataclasses.field(default_factory=lambda: {"contexts": 2})

    described = msgspec.to_builtins(describe_engine([Opened()], 32))
    assert described == dataclasses.asdict(Opened()) | {"batch": 32, "devices": None}
    three = [Opened(), Opened(device="NVIDIA L4"), Opened()]
    assert describe_engine(three, 32).device == "2 x NVIDIA H100, NVIDIA L4"


@pytest.mark.parametrize(
    ("noted", "tags", "precision"),
    [
        ("fp16", ["model", "onnx"], "fp16"),  # a file that came so, whose tags do not say it
        (None, ["tf32"], "tf32"),
        (None, ["model"], "fp32"),
        (None, None, None),
    ],
)
def test_the_precision(noted, tags, precision):
    deps = [] if tags is None else [{"key": "weights", "tags": tags, "version": "", "uoa": "1"}]
    assert make_record(model={"precision": noted}, deps=deps).precision == precision
