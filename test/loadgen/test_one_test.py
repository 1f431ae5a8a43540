"""run_test under the real LoadGen: every scenario and mode, and every way to fail."""

import re
import signal
import time

import pytest

from ck_mlperf.loadgen.job import LOG_NAMES

SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
both_interfaces = pytest.mark.parametrize("interface", ["wheel", "native"], indirect=True)


@pytest.fixture
def run(run_marked):
    return run_marked


def list_logs(log_dir):
    return sorted(path.name for path in log_dir.iterdir()) if log_dir.is_dir() else []


@both_interfaces
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("buffer_size", [1024, 70])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_accuracy_sees_every_sample_once(run, scenario, buffer_size, depth, interface):
    result = run(scenario, "AccuracyOnly", LOADGEN_BUFFER_SIZE=buffer_size, MARKED_DEPTH=depth,
                 **interface)  # fmt: skip
    assert result.code == 0, result.stderr
    predictions = result.read_accuracy()
    assert all(index == label for index, label in predictions)
    if scenario == "MultiStream":
        # LoadGen fills up the last query of each set with samples of its beginning.
        assert {index for index, _ in predictions} == set(range(300))
        assert len(predictions) < 300 + 8 * len(result.report["loads"])
    else:
        assert sorted(index for index, _ in predictions) == list(range(300))
    assert result.report["top5"] == [[index + rank for rank in range(5)] for index in range(300)]
    assert max(result.report["loads"]) == min(buffer_size, 300)
    assert list_logs(result.log_dir) == list(LOG_NAMES)


@both_interfaces
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_performance_count_is_exact(run, scenario, interface):
    more = interface | ({"LOADGEN_TARGET_QPS": 2000} if scenario == "Server" else {})
    more |= {} if scenario == "SingleStream" else {"BATCH_SIZE": 10}
    result = run(scenario, "PerformanceOnly", LOADGEN_COUNT_OVERRIDE=777, **more)
    assert result.code == 0, result.stderr
    assert result.report["top5"] is None
    expected = 777 * 8 if scenario == "MultiStream" else 777
    assert result.read_detail("generated_query_count") == (1 if scenario == "Offline" else 777)
    samples_per_query = result.read_detail("generated_samples_per_query")
    assert samples_per_query == {"Offline": 777, "MultiStream": 8}.get(scenario, 1)
    assert result.report["largest_batch"] <= 10
    assert result.report["loadgen_settings"]["min_duration_ms"] == 0
    (device,) = result.report["devices"]
    assert device["samples"] == expected


TWO = {"MARKED_PAUSES_MS": "1,3"}


@both_interfaces
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("scenario", ["MultiStream", "Server", "Offline"])
def test_two_devices_see_every_sample_once(run, scenario, depth, interface):
    result = run(scenario, "AccuracyOnly", BATCH_SIZE=4, LOADGEN_BUFFER_SIZE=130,
                 MARKED_DEPTH=depth, **TWO, **interface)  # fmt: skip
    assert result.code == 0, result.stderr
    predictions = result.read_accuracy()
    assert all(index == label for index, label in predictions)
    assert {index for index, _ in predictions} == set(range(300))
    if scenario != "MultiStream":
        assert len(predictions) == 300
    assert result.report["top5"] == [[index + rank for rank in range(5)] for index in range(300)]
    assert sum(device["samples"] for device in result.report["devices"]) == len(predictions)
    assert all(device["batches"] for device in result.report["devices"])


@both_interfaces
@pytest.mark.parametrize("depth", [1, 2])
def test_a_faster_device_gets_more(run, depth, interface):
    result = run("Offline", "SubmissionRun", images=64, BATCH_SIZE=8, LOADGEN_TARGET_QPS=1,
                 LOADGEN_COUNT_OVERRIDE=3200, MARKED_DEPTH=depth, MARKED_PAUSES_MS="1,10",
                 **interface)  # fmt: skip
    assert result.code == 0, result.stderr
    fast, slow = result.report["devices"]
    assert (fast["device"], slow["device"]) == ("marked, 1 ms", "marked, 10 ms")
    assert fast["samples"] + slow["samples"] == 3200  # those of the accuracy part are not in it
    assert fast["batches"] + slow["batches"] == 400
    assert slow["samples"] > 0
    assert fast["samples"] > 2 * slow["samples"]  # 10 times where a sleep is no longer than asked


def test_a_query_is_cut_for_all_devices(run):
    result = run("MultiStream", "PerformanceOnly", LOADGEN_COUNT_OVERRIDE=50,
                 LOADGEN_MULTISTREAMNESS=10, MARKED_PAUSES_MS="3,3,3")  # fmt: skip
    assert result.code == 0, result.stderr
    assert result.report["prepared"] == [2, 4]
    assert result.report["largest_batch"] == 4
    assert sum(device["batches"] for device in result.report["devices"]) == 150
    assert all(30 < device["batches"] < 70 for device in result.report["devices"])


@pytest.mark.parametrize(
    ("scenario", "variables", "sizes"),
    [
        ("SingleStream", {}, [1]),
        ("MultiStream", {"LOADGEN_MULTISTREAMNESS": 30, "BATCH_SIZE": 8}, [6, 8]),
        ("Offline", {"BATCH_SIZE": 7}, [7]),
        ("Server", {"BATCH_SIZE": 18}, [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18]),
    ],
)
def test_an_engine_is_told_the_sizes_of_its_batches(run, scenario, variables, sizes):
    result = run(scenario, "AccuracyOnly", images=60, **variables)
    assert result.code == 0, result.stderr
    assert result.report["prepared"] == sizes
    assert result.report["largest_batch"] <= sizes[-1]
    (device,) = result.report["devices"]
    assert device["samples"] == len(result.read_accuracy())


def test_singlestream_takes_one_device(run):
    result = run("SingleStream", "AccuracyOnly", **TWO)
    assert result.code == 2
    assert "2 GPUs, and SingleStream sends one sample at a time" in result.stderr
    assert list_logs(result.log_dir) == []


@pytest.mark.slow
@both_interfaces
def test_overloaded_server_ends_early(run, interface):
    # The engine takes 6,400 samples per second at most.
    result = run(
        "Server",
        "PerformanceOnly",
        failure="slow",
        LOADGEN_TARGET_QPS=12800,
        LOADGEN_DURATION=50,
        BATCH_SIZE=64,
        **interface,
    )
    assert result.code == 0, result.stderr
    assert result.read_detail("result_validity") == "INVALID"
    in_force = result.report["loadgen_settings"]
    assert in_force["server_max_async_queries"] == pytest.approx(12800, abs=1)
    made, answered = map(result.read_detail, ("generated_query_count", "result_query_count"))
    assert answered < made / 2


@both_interfaces
def test_submission_run_is_both(run, interface):
    result = run(
        "Offline",
        "SubmissionRun",
        LOADGEN_COUNT_OVERRIDE=5000,
        LOADGEN_BUFFER_SIZE=100,
        LOADGEN_TARGET_QPS=1,
        **interface,
    )
    assert result.code == 0, result.stderr
    assert sorted(result.read_accuracy()) == [(index, index) for index in range(300)]
    assert result.report["loads"] == [100, 100, 100, 100]
    assert result.read_detail("result_validity") == "VALID"
    assert len(result.report["top5"]) == 300


@pytest.mark.slow  # and in need of a quiet machine
@both_interfaces
def test_find_peak_performance(run, interface):
    # 10 ms for a batch of 4: no more than 400 queries per second.
    result = run(
        "Server",
        "FindPeakPerformance",
        failure="slow",
        LOADGEN_TARGET_QPS=40,
        LOADGEN_TARGET_LATENCY=60,
        LOADGEN_COUNT_OVERRIDE=40,
        BATCH_SIZE=4,
        **interface,
    )
    assert result.code == 0, result.stderr
    detail = (result.log_dir / "mlperf_log_detail.txt").read_text()
    peak = re.search(r"Found peak performance field: ([0-9.]+)", detail)
    assert peak is not None
    assert float(peak[1]) > 40


@both_interfaces
def test_variables_take_precedence_over_user_conf_and_that_over_mlperf_conf(
    run, tmp_path, interface
):
    conf = tmp_path / "user.conf"
    conf.write_text(
        "*.MultiStream.min_duration = 300\n"
        "*.MultiStream.min_query_count = 70\n"
        "*.MultiStream.samples_per_query = 4\n"
        "*.MultiStream.target_latency = 3.5\n"
    )
    result = run(
        "MultiStream",
        "PerformanceOnly",
        LOADGEN_CONF_FILE=conf,
        LOADGEN_TARGET_LATENCY=2.5,
        LOADGEN_DURATION=0.2,
        **interface,
    )
    assert result.code == 0, result.stderr
    in_force = result.report["loadgen_settings"]
    assert in_force["min_duration_ms"] == 200
    assert in_force["min_query_count"] == 70
    assert in_force["multi_stream_samples_per_query"] == 4
    assert in_force["multi_stream_expected_latency_ns"] == 2.5e6
    assert in_force["multi_stream_target_latency_percentile"] == 0.99  # mlperf.conf
    assert in_force["qsl_rng_seed"] != 0  # mlperf.conf
    assert in_force["scenario"] == "MultiStream"
    assert in_force["mode"] == "PerformanceOnly"
    assert in_force["performance_sample_count_override"] == 300


def test_server_settings(run):
    result = run(
        "Server", "PerformanceOnly", LOADGEN_TARGET_QPS=100, LOADGEN_DURATION=0.5,
        LOADGEN_TARGET_LATENCY=20.5,
    )  # fmt: skip
    assert result.code == 0, result.stderr
    in_force = result.report["loadgen_settings"]
    assert in_force["server_coalesce_queries"] is True
    assert in_force["server_target_latency_ns"] == 20_500_000
    assert in_force["server_max_async_queries"] == 100


def make_long(scenario, failure, folder):
    """Variables of a performance run that takes LOADGEN_DURATION unless it fails.

    In Server a failure ends it when as many queries are open as may be: those of a second, which is
    waited for once.
    """
    if scenario != "Server":
        rate = {"TARGET_QPS": 1} if scenario == "Offline" else {"TARGET_LATENCY": 100}
        return {f"LOADGEN_{name}": value for name, value in rate.items()} | {
            "LOADGEN_DURATION": 600
        }
    more = {"LOADGEN_TARGET_QPS": 2000, "LOADGEN_DURATION": 40}
    if failure == "enqueue":
        return more
    conf = folder / "user.conf"
    conf.write_text("*.Server.max_async_queries = 100\n")
    return more | {"LOADGEN_CONF_FILE": conf}


@pytest.mark.parametrize(
    ("interface", "mode"),
    [("wheel", "AccuracyOnly"), ("wheel", "PerformanceOnly"), ("native", "PerformanceOnly")],
    indirect=["interface"],
)
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        ("open", 2, "error: open failed\n"),
        ("load", 2, "error: load failed\n"),
        ("prepare", 2, "error: prepare failed\n"),
        ("enqueue", 2, "error: enqueue failed\n"),
        ("defect-collect", 1, "ZeroDivisionError: collect has a defect\n"),
        ("short", 2, "a defect of the engine\n"),
        ("interrupt", 130, "interrupted\n"),
    ],
)
def test_failure_ends_soon_and_leaves_nothing(
    run, scenario, mode, failure, code, message, interface, tmp_path
):
    more = {"MARKED_DEPTH": 2} | make_long(scenario, failure, tmp_path) | interface
    result = run(scenario, mode, failure=failure, **more)
    assert result.code == code, result.stderr
    assert result.stderr.endswith(message)
    assert code == 1 or "Traceback" not in result.stderr
    assert list_logs(result.log_dir) == []
    assert result.elapsed_s < more["LOADGEN_DURATION"]


@both_interfaces
@pytest.mark.parametrize("scenario", ["MultiStream", "Server", "Offline"])
@pytest.mark.parametrize(
    ("mode", "failure", "code", "message"),
    [
        ("AccuracyOnly", "enqueue", 2, "error: enqueue failed\n"),
        ("PerformanceOnly", "load", 2, "error: load failed\n"),
        ("PerformanceOnly", "prepare", 2, "error: prepare failed\n"),
        ("PerformanceOnly", "enqueue", 2, "error: enqueue failed\n"),
        ("PerformanceOnly", "defect-collect", 1, "ZeroDivisionError: collect has a defect\n"),
        ("PerformanceOnly", "interrupt", 130, "interrupted\n"),
    ],
)
def test_failure_of_one_of_two_devices(
    run, scenario, mode, failure, code, message, interface, tmp_path
):
    more = {"MARKED_DEPTH": 2, "BATCH_SIZE": 4, "MARKED_PAUSES_MS": "1,1"}
    more |= make_long(scenario, failure, tmp_path) | interface
    result = run(scenario, mode, failure=failure, **more)
    assert result.code == code, result.stderr
    assert result.stderr.endswith(message)
    assert code == 1 or "Traceback" not in result.stderr
    assert list_logs(result.log_dir) == []
    assert result.elapsed_s < more["LOADGEN_DURATION"]


@both_interfaces
def test_failure_after_the_last_answer(run, interface):
    result = run("SingleStream", "AccuracyOnly", failure="unload", **interface)
    assert result.code == 2
    assert result.stderr == "error: unload failed\n"
    assert list_logs(result.log_dir) == []


def test_stale_logs_go_first(run, tmp_path):
    stale = tmp_path / "logs" / "mlperf_log_summary.txt"
    stale.parent.mkdir()
    stale.write_text("Result is : VALID")
    (stale.parent / ".loadgen-unfinished-abc").mkdir()
    result = run("Offline", "AccuracyOnly", failure="load")
    assert result.code == 2
    assert list_logs(result.log_dir) == []


def test_kill_leaves_nothing_that_looks_whole(tmp_path, run, start_marked):
    process = start_marked(tmp_path, 300, "slow", {"CK_LOADGEN_MODE": "AccuracyOnly"})
    deadline = time.monotonic() + 30
    while not list((tmp_path / "logs").glob("*/mlperf_log_detail.txt")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not set(LOG_NAMES) & set(list_logs(tmp_path / "logs"))
    assert run("Offline", "AccuracyOnly").code == 0
    assert list_logs(tmp_path / "logs") == list(LOG_NAMES)


@pytest.mark.parametrize("more", [{}, {"LOADGEN_COMPLIANCE": "TEST01"}])
def test_an_audit_config_lying_about_is_refused(run, tmp_path, more):
    (tmp_path / "audit.config").write_text("*.*.mode = 2\n")
    result = run("Offline", "PerformanceOnly", **more)
    assert result.code == 2
    assert "audit.config: this file of LoadGen's overrides every setting" in result.stderr


def test_sizes_are_checked_before_the_engine_is_opened(run):
    result = run("Offline", "AccuracyOnly", failure="open", LOADGEN_DATASET_SIZE=301, BATCH_SIZE=65)
    assert result.code == 2
    assert "the data set has 300 images" in result.stderr
    assert "takes at most 64 images" in result.stderr


def test_more_queries_than_memory(run):
    result = run("SingleStream", "PerformanceOnly", LOADGEN_TARGET_LATENCY=0.001,
                 LOADGEN_DURATION=604800)  # fmt: skip
    assert result.code == 2
    assert "this machine has" in result.stderr


def test_folder_that_cannot_be_made(run, tmp_path):
    (tmp_path / "logs").write_text("a file")
    result = run("Offline", "AccuracyOnly")
    assert result.code == 2
    assert result.stderr == f"error: {tmp_path / 'logs'}: a file, want a folder for the logs\n"


def test_full_disk(run):
    # To LoadGen a limit on the size of files looks like a full disk: its writes fail.
    result = run("Offline", "AccuracyOnly", images=3000, MARKED_FILE_LIMIT=100_000)
    assert result.code == 2
    assert "mlperf_log_accuracy.json: LoadGen left it cut off. Is the disk full?" in result.stderr
    assert list_logs(result.log_dir) == []
