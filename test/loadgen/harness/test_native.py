"""LoadGen by its C++ interface: the same as by its Python module, and what goes wrong."""

import json
import re
import shutil

import numpy as np
import pytest

import ck_mlperf.loadgen.harness.native as module
from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.harness.native import (
    RESPONSE,
    NativeInterface,
    NativeResponses,
    choose_interface,
)
from ck_mlperf.loadgen.job import LOG_NAMES

# A test of each kind, with all that would be measured given: {scenario, mode, variables}.
TESTS = {
    "SingleStream": dict(LOADGEN_TARGET_LATENCY=1, LOADGEN_COUNT_OVERRIDE=200),
    "too few queries": dict(LOADGEN_TARGET_LATENCY=1, LOADGEN_COUNT_OVERRIDE=20),
    "MultiStream": dict(LOADGEN_TARGET_LATENCY=1, LOADGEN_COUNT_OVERRIDE=700),
    "MultiStream, many": dict(
        LOADGEN_TARGET_LATENCY=1, LOADGEN_COUNT_OVERRIDE=700, LOADGEN_MULTISTREAMNESS=20
    ),
    "Offline": dict(LOADGEN_TARGET_QPS=1000, LOADGEN_COUNT_OVERRIDE=5000, BATCH_SIZE=7),
    "Server": dict(
        LOADGEN_TARGET_QPS=10_000, LOADGEN_COUNT_OVERRIDE=1500, LOADGEN_TARGET_LATENCY=1000
    ),
}
# What LoadGen notes of what was asked of it, and of what it made of that.
TOLD = re.compile(r"requested_|effective_|generated_|qsl_reported|result_validity|loadgen_version")


def read_detail(log_dir):
    lines = (log_dir / "mlperf_log_detail.txt").read_text().splitlines()
    return [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]


def read_logs(result):
    assert result.code == 0, result.stderr
    return {name: (result.log_dir / name).read_text() for name in LOG_NAMES}


@pytest.mark.parametrize("mode", ["AccuracyOnly", "PerformanceOnly", "SubmissionRun"])
@pytest.mark.parametrize("name", TESTS)
def test_it_is_the_same_test_as_by_the_python_module(run_marked, native_library, name, mode):
    scenario = name.partition(",")[0] if name != "too few queries" else "SingleStream"
    wheel = run_marked(scenario, mode, **TESTS[name])
    wheel_logs, wheel_detail = read_logs(wheel), read_detail(wheel.log_dir)
    native = run_marked(scenario, mode, **TESTS[name], MARKED_LIBRARY=native_library)
    native_logs, native_detail = read_logs(native), read_detail(native.log_dir)

    assert (wheel.report["interface"], native.report["interface"]) == ("wheel", "native")
    assert native.report["loadgen_settings"] == wheel.report["loadgen_settings"]
    assert native.report["top5"] == wheel.report["top5"]
    assert native.report["loads"] == wheel.report["loads"]
    answers = [json.loads(logs["mlperf_log_accuracy.json"]) for logs in (wheel_logs, native_logs)]
    if scenario == "Server":  # in the order of completion
        answers = [sorted(lines, key=lambda line: line["seq_id"]) for lines in answers]
    assert answers[0] == answers[1]
    told = [
        {(r["key"], str(r["value"])) for r in detail if TOLD.match(r["key"])}
        for detail in (wheel_detail, native_detail)
    ]
    assert told[0] == told[1]
    assert len(told[0]) > 50
    keys = [
        {r["key"] for r in detail if not r["key"].startswith("warning")}  # they depend on speed
        for detail in (wheel_detail, native_detail)
    ]
    assert keys[0] == keys[1]
    without_figures = [
        re.sub(
            r"SUT name.*|.*warning.*|\d+(\.\d+)?(e[+-]\d+)?", "#", logs["mlperf_log_summary.txt"]
        )
        for logs in (wheel_logs, native_logs)
    ]
    assert without_figures[0] == without_figures[1]
    if mode != "AccuracyOnly":
        validity = [r["value"] for r in native_detail if r["key"] == "result_validity"]
        assert validity[-1] == ("INVALID" if name == "too few queries" else "VALID")


@pytest.mark.parametrize("pauses", ["0", "0,0"])
@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server", "Offline"])
def test_an_exception_in_a_callback_ends_the_process(run_marked, native_library, scenario, pauses):
    """ctypes would print it, and LoadGen wait for ever."""
    if scenario == "SingleStream" and pauses != "0":
        pytest.skip("SingleStream takes one engine")
    result = run_marked(scenario, "AccuracyOnly", failure="callback", MARKED_PAUSES_MS=pauses,
                        MARKED_LIBRARY=native_library)  # fmt: skip
    assert result.code == 1
    assert "ZeroDivisionError: a callback has a defect" in result.stderr
    assert "a callback of LoadGen failed, which ends the process" in result.stderr
    assert not {path.name for path in result.log_dir.iterdir()} & set(LOG_NAMES)


def test_responses_point_at_the_labels():
    completed = []
    results = np.arange(5, dtype=np.int32)
    responses = NativeResponses(results, lambda *call: completed.append(call), print)
    responses.complete(np.array([7, 8, 9], np.uint64))
    responses.complete([2**63 + 1])
    array = responses._responses
    assert completed == [(array.ctypes.data, 3), (array.ctypes.data, 1)]
    assert array.dtype == RESPONSE
    assert array["id"].tolist() == [2**63 + 1, 8, 9, 0, 0]
    assert array["data"].tolist() == [results.ctypes.data + 4 * slot for slot in range(5)]
    assert array["size"].tolist() == [4] * 5
    assert array["n_tokens"].tolist() == [0] * 5


def test_every_setting_of_the_python_module_is_known(native_library):
    import mlperf_loadgen

    interface = NativeInterface(native_library)
    interface._delete_settings(interface._copy_settings(mlperf_loadgen.TestSettings()))
    test = mlperf_loadgen.TestSettings()
    names = [n for n in dir(test) if not n.startswith("_") and not callable(getattr(test, n))]
    assert len(names) > 40
    for wrong in ("", "min_duration", "qsl_rng_seed "):
        settings = interface._new_settings()
        assert not interface._set(settings, wrong.encode(), 1.0, 1)
        interface._delete_settings(settings)


def test_which_interface_a_run_uses(native_library, monkeypatch):
    assert choose_interface(None)[0].name == "wheel"
    interface, reason = choose_interface(native_library)
    assert (interface.name, reason) == ("native", "")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "6.9")
    interface, reason = choose_interface(native_library)
    assert interface.name == "wheel"
    assert reason == (
        f"{native_library}: it is LoadGen {NativeInterface(native_library).version}, and its "
        "Python module is 6.9"
    )


def test_a_library_of_another_shim_is_not_used(native_library, monkeypatch, tmp_path):
    shim = tmp_path / "native.cc"
    shutil.copy(module.SHIM, shim)
    with shim.open("a") as file:
        file.write("// newer\n")
    monkeypatch.setattr(module, "SHIM", shim)
    interface, reason = choose_interface(native_library)
    assert interface.name == "wheel"
    assert "was made of another version of this repository's native.cc" in reason
    assert "ck install package:lib-loadgen-native" in reason


def test_what_is_no_library(tmp_path):
    path = tmp_path / "libloadgen-native.so"
    path.write_text("no library")
    with pytest.raises(UserError, match="no native LoadGen that can be loaded"):
        NativeInterface(path)
    assert choose_interface(path)[0].name == "wheel"


def test_the_shim_is_small():
    assert len(module.SHIM.read_text().splitlines()) <= 150
