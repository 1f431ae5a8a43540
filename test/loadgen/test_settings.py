"""Settings from the environment and from a job: defaults, ranges, and every problem at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.settings import (
    VARIABLES,
    RunSettings,
    dump_settings,
    list_help,
    load_settings,
    read_settings,
)


def read_problem(read=read_settings, **values):
    with pytest.raises(UserError) as caught:
        read(values)
    return str(caught.value)


def test_defaults():
    settings = read_settings({"HOME": "/", "CK_LOADGEN_SCENARIO": "", "CK_VERBOSE": " "})
    assert settings == RunSettings()
    assert (settings.scenario, settings.mode) == ("SingleStream", "AccuracyOnly")
    assert settings.buffer_size == 1024
    assert settings.given == frozenset()


ENVIRONMENT = {
    "CK_LOADGEN_SCENARIO": "MultiStream",
    "CK_LOADGEN_MODE": "PerformanceOnly",
    "CK_LOADGEN_COMPLIANCE": "TEST04",
    "CK_LOADGEN_MULTISTREAMNESS": "30",
    "CK_BATCH_SIZE": " 15 ",
    "CK_CUDA_DEVICES": "2,0",
    "CK_LOADGEN_DATASET_SIZE": "500",
    "CK_LOADGEN_BUFFER_SIZE": "100",
    "CK_LOADGEN_COUNT_OVERRIDE": "1440",
    "CK_LOADGEN_TARGET_LATENCY": "12.5",
    "CK_TIMEOUT": "100",
    "CK_LOADGEN_DURATION": "2",
    "CK_SILENT_MODE": "yes",
    "CK_VERBOSE": "0",
    "CK_EXPLORE_RUN": "resnet50-v1.5_B.32",
}


def test_every_variable_is_read():
    settings = read_settings(ENVIRONMENT)
    assert settings == RunSettings(
        scenario="MultiStream",
        mode="PerformanceOnly",
        compliance="TEST04",
        multistreamness=30,
        batch_size=15,
        cuda_devices=(2, 0),
        dataset_size=500,
        buffer_size=100,
        count_override=1440,
        target_latency_ms=12.5,
        duration_s=2.0,
        timeout_s=100.0,
        silent=True,
        run="resnet50-v1.5_B.32",
    )
    assert settings.given == ENVIRONMENT.keys()
    server = {"CK_LOADGEN_SCENARIO": "Server", "CK_LOADGEN_TARGET_QPS": "2.5"}
    assert read_settings(server).target_qps == 2.5
    missing = {variable.name for variable in VARIABLES} - ENVIRONMENT.keys()
    assert missing == {"CK_LOADGEN_TARGET_QPS", "CK_LOADGEN_CONF_FILE"}


def test_a_job_gives_the_same_settings_as_the_environment(tmp_path):
    conf = tmp_path / "user.conf"
    conf.write_text("*.MultiStream.min_query_count = 70\n")
    settings = read_settings(ENVIRONMENT | {"CK_LOADGEN_CONF_FILE": str(conf)})
    dumped = json.loads(json.dumps(dump_settings(settings)))
    assert dumped["CK_BATCH_SIZE"] == 15
    assert dumped["CK_CUDA_DEVICES"] == [2, 0]
    assert dumped["CK_LOADGEN_DURATION"] == 2.0
    assert dumped["CK_VERBOSE"] is False
    loaded = load_settings(dumped)
    assert loaded == settings
    assert loaded.given == settings.given
    assert loaded.conf == {"min_query_count": 70}
    assert dump_settings(read_settings({"CK_LOADGEN_MODE": "AccuracyOnly"})) == {
        "CK_LOADGEN_MODE": "AccuracyOnly"
    }


def test_a_job_written_by_hand():
    values = {"CK_LOADGEN_SCENARIO": "Server", "CK_LOADGEN_TARGET_QPS": 50, "CK_BATCH_SIZE": None}
    settings = load_settings(values)
    assert settings == RunSettings(scenario="Server", target_qps=50.0)
    assert settings.given == {"CK_LOADGEN_SCENARIO", "CK_LOADGEN_TARGET_QPS"}
    every_gpu = load_settings({"CK_LOADGEN_SCENARIO": "Offline", "CK_CUDA_DEVICES": "all"})
    assert every_gpu.cuda_devices == "all"


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("CK_LOADGEN_SCENARIO", ["Offline"], "want one of SingleStream"),
        ("CK_BATCH_SIZE", "32", "want a whole number, 1 to 65,536"),
        ("CK_BATCH_SIZE", 32.0, "want a whole number"),
        ("CK_BATCH_SIZE", True, "want a whole number"),
        ("CK_BATCH_SIZE", 0, "want a whole number"),
        ("CK_LOADGEN_DURATION", "10", "want a number, 0 to"),
        ("CK_LOADGEN_DURATION", float("nan"), "want a number, 0 to"),
        ("CK_VERBOSE", "yes", "want true or false"),
        ("CK_CUDA_DEVICES", 1, "want all, or numbers"),
        ("CK_CUDA_DEVICES", [], "want all, or numbers"),
        ("CK_CUDA_DEVICES", [0, 0], "GPU 0 is there twice"),
        ("CK_CUDA_DEVICES", [True], "want all, or numbers"),
        ("CK_EXPLORE_RUN", "a b", "want 1 to 64 letters"),
        ("CK_LOADGEN_CONF_FILE", 1, "want a file"),
        ("CK_BATCH", 1, "no such variable; did you mean CK_BATCH_SIZE?"),
        ("HOME", "/", "no such variable"),
    ],
)
def test_wrong_value_in_a_job(name, value, wanted):
    problem = read_problem(load_settings, **{name: value})
    assert wanted in problem
    assert problem.startswith(name)


def test_the_page_of_settings_is_current(repository):
    lines = (repository / "docs" / "settings.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `CK_")]
    assert len(rows) == len(VARIABLES)
    for variable, row in zip(VARIABLES, rows, strict=True):
        only = f"({', '.join(variable.scenarios)} only)"
        assert (only in row) == (len(variable.scenarios) < 4)
        for part in (f"`{variable.name}`", variable.help, variable.default, variable.range):
            assert part in row
        assert f" | {variable.unit} | " in row


def test_help_says_what_is_declared():
    rows = dict(list_help())
    assert rows["CK_LOADGEN_DURATION"] == (
        "The shortest duration of a performance run. Values: 0 to 604,800 s. "
        "Default: 600, or user.conf's min_duration; 0 where a count is asked for."
    )
    assert "(MultiStream only) Values: 1 to 65,536 samples." in rows["CK_LOADGEN_MULTISTREAMNESS"]
    assert "Default: no." in rows["CK_VERBOSE"]
    assert "Default: 1024." in rows["CK_LOADGEN_BUFFER_SIZE"]


def test_hooks_can_read_settings_and_write_a_job_with_the_standard_library_alone(
    library_environment,
):
    # -S: without site-packages.
    command = [sys.executable, "-S", "-m", "ck_mlperf.loadgen.job"]
    process = subprocess.run(command, env=library_environment, capture_output=True, check=False)
    assert (process.returncode, process.stderr) == (0, b"")


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
    assert "did you mean CK_BATCH_SIZE?" in read_problem(CK_BATCHSIZE="4")
    read_settings({"CUDA_VISIBLE_DEVICES": "0"})


@pytest.mark.parametrize("read", [read_settings, load_settings])
def test_singlestream_has_no_batches(read):
    one, many = ("1", "8") if read is read_settings else (1, 8)
    assert "CK_BATCH_SIZE=8: SingleStream sends one" in read_problem(read, CK_BATCH_SIZE=many)
    assert read({"CK_BATCH_SIZE": one}).batch_size == 1
    assert read({"CK_BATCH_SIZE": many, "CK_LOADGEN_SCENARIO": "Offline"}).batch_size == 8


def test_problems_found_elsewhere_are_listed_too():
    with pytest.raises(UserError, match=r"2 settings .*\n  --x: no such option\n  CK_BATCH"):
        read_settings({"CK_BATCH_SIZE": "many"}, ["--x: no such option"])


def test_all_problems_at_once(tmp_path):
    conf = Path(tmp_path / "user.conf")
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
