"""The environment as settings: defaults, ranges, and every problem at once."""

import pytest

import ck_mlperf.loadgen.settings as module
from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.settings import (
    VARIABLES,
    RunSettings,
    read_settings,
    resolve_devices,
    resolve_settings,
    validate_against,
)


def read_problem(**environ):
    with pytest.raises(UserError) as caught:
        read_settings(environ)
    return str(caught.value)


def test_defaults():
    settings = read_settings({"HOME": "/", "CK_LOADGEN_SCENARIO": "", "CK_VERBOSE": " "})
    assert settings == RunSettings()
    assert (settings.scenario, settings.mode) == ("SingleStream", "AccuracyOnly")
    assert settings.buffer_size == 1024


def test_every_variable_is_read():
    environ = {
        "CK_LOADGEN_SCENARIO": "MultiStream",
        "CK_LOADGEN_MODE": "PerformanceOnly",
        "CK_LOADGEN_MULTISTREAMNESS": "30",
        "CK_BATCH_SIZE": "15",
        "CK_CUDA_DEVICES": "2,0",
        "CK_LOADGEN_DATASET_SIZE": "500",
        "CK_LOADGEN_BUFFER_SIZE": "100",
        "CK_LOADGEN_COUNT_OVERRIDE": "1440",
        "CK_LOADGEN_TARGET_LATENCY": "12.5",
        "CK_LOADGEN_DURATION": "0.5",
        "CK_SILENT_MODE": "yes",
        "CK_VERBOSE": "0",
        "CK_EXPLORE_RUN": "resnet50-v1.5_B.32",
    }
    assert read_settings(environ) == RunSettings(
        scenario="MultiStream",
        mode="PerformanceOnly",
        multistreamness=30,
        batch_size=15,
        cuda_devices=(2, 0),
        dataset_size=500,
        buffer_size=100,
        count_override=1440,
        target_latency_ms=12.5,
        duration_s=0.5,
        silent=True,
        run="resnet50-v1.5_B.32",
    )
    server = {"CK_LOADGEN_SCENARIO": "Server", "CK_LOADGEN_TARGET_QPS": "2.5"}
    assert read_settings(server).target_qps == 2.5


def test_variables_and_settings_agree():
    fields = {name for name in RunSettings.__dataclass_fields__ if name != "conf"}
    assert {variable.field for variable in VARIABLES} == fields
    assert all(variable.help.endswith(".") and variable.range for variable in VARIABLES)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("CK_LOADGEN_SCENARIO", "offline", "did you mean Offline?"),
        ("CK_LOADGEN_MODE", "Performance", "did you mean PerformanceOnly?"),
        ("CK_BATCH_SIZE", "0", "want a whole number, 1 to 65,536"),
        ("CK_BATCH_SIZE", "-1", "want a whole number"),
        ("CK_BATCH_SIZE", "1e3", "want a whole number"),
        ("CK_LOADGEN_DATASET_SIZE", "500.0", "want a whole number"),
        ("CK_LOADGEN_BUFFER_SIZE", "many", "want a whole number"),
        ("CK_LOADGEN_COUNT_OVERRIDE", "9" * 5000, "want a whole number"),
        ("CK_LOADGEN_TARGET_LATENCY", "nan", "want a number, 0.001 to"),
        ("CK_LOADGEN_DURATION", "inf", "want a number, 0 to"),
        ("CK_LOADGEN_DURATION", "10s", "want a number, 0 to"),
        ("CK_SILENT_MODE", "perhaps", "want yes or no"),
        ("CK_CUDA_DEVICES", "0,0", "GPU 0 is there twice"),
        ("CK_CUDA_DEVICES", "1,01", "GPU 1 is there twice"),
        ("CK_CUDA_DEVICES", "-1", "want all, or numbers from 0 to 1,023: 0,1"),
        ("CK_CUDA_DEVICES", "0,,1", "want all, or numbers"),
        ("CK_CUDA_DEVICES", "0 1", "want all, or numbers"),
        ("CK_CUDA_DEVICES", "every", "want all, or numbers"),
        ("CK_CUDA_DEVICES", "1024", "want all, or numbers"),
        ("CK_CUDA_DEVICES", "9" * 5000, "want all, or numbers"),
        ("CK_CUDA_DEVICES", "\u0663", "want all, or numbers"),
        ("CK_CUDA_DEVICES", "0,1", "2 GPUs, and SingleStream sends one sample at a time"),
        ("CK_EXPLORE_RUN", "a b", "want 1 to 64 letters, digits"),
        ("CK_EXPLORE_RUN", "../a/b", "want 1 to 64 letters, digits"),
        ("CK_EXPLORE_RUN", "a" * 65, "want 1 to 64 letters, digits"),
        ("CK_EXPLORE_RUN", "caf\u00e9", "want 1 to 64 letters, digits"),
        ("CK_LOADGEN_CONF_FILE", "/no/such/user.conf", "No such file"),
        ("CK_LOADGEN_CONF_FILE", "/", "Is a directory"),
    ],
)
def test_wrong_value(name, value, wanted):
    problem = read_problem(**{name: value})
    assert wanted in problem
    assert name in problem


def test_misspelt_variable():
    problem = read_problem(CK_LOADGEN_SCENARYO="Offline")
    assert "CK_LOADGEN_SCENARYO: no such variable; did you mean CK_LOADGEN_SCENARIO?" in problem


def test_all_problems_at_once(tmp_path):
    conf = tmp_path / "user.conf"
    conf.write_text("*.Offline.target_qps=10\n")
    problem = read_problem(
        CK_LOADGEN_MOD="AccuracyOnly",
        CK_BATCH_SIZE="x",
        CK_LOADGEN_SCENARIO="Offline",
        CK_LOADGEN_CONF_FILE=str(conf),
        CK_LOADGEN_TARGET_LATENCY="5",
    )
    assert problem.startswith("4 settings are wrong")
    for part in ("CK_LOADGEN_MOD:", "CK_BATCH_SIZE=x", "line 1", "means nothing in Offline"):
        assert part in problem


def test_scenario_conflicts():
    assert "LoadGen does that in Server only" in read_problem(CK_LOADGEN_MODE="FindPeakPerformance")
    assert "means nothing in SingleStream" in read_problem(CK_LOADGEN_TARGET_QPS="5")
    assert "means nothing in SingleStream" in read_problem(CK_LOADGEN_MULTISTREAMNESS="8")


def test_validate_against():
    settings = RunSettings(
        dataset_size=501, batch_size=33, conf={"performance_issue_same_index": 9}
    )
    problems = validate_against(settings, available_images=500, engine_max_batch=32)
    assert len(problems) == 2
    assert "has 500 images" in problems[0]
    assert "at most 32 images" in problems[1]
    assert validate_against(RunSettings(dataset_size=500, batch_size=32), 500, 32) == []
    assert validate_against(RunSettings(batch_size=4096), 500, None) == []
    same = RunSettings(conf={"performance_issue_same_index": 9})
    assert validate_against(same, 10, None) == []
    assert "only 9 images are loaded" in validate_against(same, 9, None)[0]
    with pytest.raises(UserError, match="2 settings are wrong"):
        resolve_settings(settings, 500, 32)


@pytest.mark.parametrize(
    ("settings", "max_batch", "batch_size"),
    [
        (RunSettings(), None, 1),
        (RunSettings(scenario="Offline"), None, 32),
        (RunSettings(scenario="Offline"), 8, 8),
        (RunSettings(scenario="Server"), 256, 32),
        (RunSettings(scenario="Server", batch_size=100), 256, 100),
        (RunSettings(batch_size=4), None, 4),
    ],
)
def test_resolve_batch_size(settings, max_batch, batch_size):
    resolved = resolve_settings(settings, 500, max_batch)
    assert resolved.batch_size == batch_size
    assert (resolved.dataset_size, resolved.buffer_size) == (500, 500)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(module, "list_cuda_devices", lambda: (0, 1))


@pytest.mark.parametrize(
    ("text", "kind", "devices"),
    [
        (None, "onnx", (0,)),
        (None, "tensorrt", (0,)),
        ("all", "tensorrt", (0, 1)),
        ("1, 0", "onnx-cuda", (1, 0)),
        ("5,7,6", "null", (5, 7, 6)),
    ],
)
def test_resolve_devices(two_gpus, text, kind, devices):
    environ = {"CK_LOADGEN_SCENARIO": "Offline", "CK_CUDA_DEVICES": text or ""}
    assert resolve_devices(read_settings(environ), kind) == devices


@pytest.mark.parametrize(
    ("scenario", "text", "kind", "problem"),
    [
        ("Offline", "0", "onnx", "CK_CUDA_DEVICES=0: this model runs on the CPU. Leave it out"),
        ("Offline", "all", "onnx", "CK_CUDA_DEVICES=all: this model runs on the CPU. Leave it out"),
        ("Offline", "1,2,3", "tensorrt", "no GPU 2,3 here, only 0,1"),
        ("SingleStream", "all", "tensorrt", "2 GPUs, and SingleStream sends one sample at a time"),
    ],
)
def test_devices_that_cannot_be(two_gpus, scenario, text, kind, problem):
    settings = read_settings({"CK_LOADGEN_SCENARIO": scenario, "CK_CUDA_DEVICES": text})
    with pytest.raises(UserError, match=problem):
        resolve_devices(settings, kind)


def test_no_device_is_looked_for_unless_named(monkeypatch):
    monkeypatch.setattr(module, "list_cuda_devices", lambda: pytest.fail("looked"))
    for kind in ("onnx", "onnx-cuda", "tensorrt"):
        assert resolve_devices(RunSettings(), kind) == (0,)
