import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.job import ACCURACY_LOG, DETAIL_LOG
from ck_mlperf.results.logs import read_answers, read_result
from ck_mlperf.results.record import EarlyStopped

SHORT = {"MODE": "PerformanceOnly", "DURATION": 0.2}
SCENARIOS = ["SingleStream", "MultiStream", "Server", "Offline"]


@pytest.fixture
def copied(real_run, tmp_path):
    """Logs of a valid SingleStream run and its accuracy, to be spoilt."""
    run = real_run(SCENARIO="SingleStream", MODE="SubmissionRun", DURATION=0.2)
    for name in (DETAIL_LOG, ACCURACY_LOG):
        shutil.copyfile(run.outcome.log_dir / name, tmp_path / name)
    return tmp_path


def change(folder: Path, old: str, new: str, name: str = DETAIL_LOG) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


def change_value(folder: Path, key: str, value: str) -> None:
    lines = (folder / DETAIL_LOG).read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith(f':::MLLOG {{"key": "{key}"'):
            event = json.loads(line[9:])
            event["value"] = "HERE"
            lines[number] = f":::MLLOG {json.dumps(event)}".replace('"HERE"', value)
    (folder / DETAIL_LOG).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_performance_log_agrees_with_loadgens_summary(real_run, scenario):
    more = {"TARGET_QPS": 500} if scenario in ("Server", "Offline") else {}
    folder = real_run(SCENARIO=scenario, **more, **SHORT).outcome.log_dir
    result = read_result(folder)
    summary = {}
    for line in (folder / "mlperf_log_summary.txt").read_text().splitlines():
        name, _, value = line.partition(":")
        summary.setdefault(name.strip(), value.strip())
    assert result.scenario == summary["Scenario"] == scenario
    assert result.mode == summary["Mode"] == "PerformanceOnly"
    performance = result.performance
    assert ("VALID" if performance.is_valid else "INVALID") == summary["Result is"]
    names = {"Min latency (ns)": "min", "Max latency (ns)": "max", "Mean latency (ns)": "mean"}
    names |= {f"{p}.00 percentile latency (ns)": f"p{p}" for p in (50, 90, 95, 97, 99)}
    names["99.90 percentile latency (ns)"] = "p99_9"
    assert msgspec.structs.asdict(performance.latencies_ns) == {
        ours: int(summary[theirs]) for theirs, ours in names.items()
    }
    assert result.settings["min_duration_ms"] == int(summary["min_duration (ms)"]) == 200
    assert result.get_number("performance_sample_count") == 500
    assert performance.throughput.samples_per_second > 0
    rates = {
        "SingleStream": "QPS w/ loadgen overhead",
        "Server": "Completed samples per second",
        "Offline": "Samples per second",
    }
    if scenario in rates:
        assert performance.throughput.samples_per_second == pytest.approx(
            float(summary[rates[scenario]]), rel=1e-4
        )


def test_multistream_latencies_are_those_of_queries(real_run):
    run = real_run(SCENARIO="MultiStream", MULTISTREAMNESS=30, COUNT_OVERRIDE=1440,
                   MODE="PerformanceOnly")  # fmt: skip
    result = read_result(run.outcome.log_dir)
    performance = result.performance
    counts, throughput = performance.counts, performance.throughput
    assert (counts.queries, counts.samples_per_query, counts.samples) == (1440, 30, 43_200)
    assert throughput.queries_per_second == pytest.approx(throughput.samples_per_second / 30)
    assert performance.early_stopped_ns.p99 >= performance.latencies_ns.p99
    assert performance.early_stopped_ns.p90 is None
    assert performance.latencies_ns.mean * 1440 / 1e9 <= performance.duration_s + 0.002


def test_accuracy_run_has_no_performance(real_run):
    result = read_result(real_run(SCENARIO="Offline").outcome.log_dir)
    assert (result.mode, result.performance) == ("AccuracyOnly", None)
    assert result.version.count(".") == 2


def test_reasons_of_an_invalid_run_are_named(real_run):
    run = real_run(SCENARIO="Offline", MODE="PerformanceOnly", DURATION=30, TARGET_QPS=10)
    performance = read_result(run.outcome.log_dir).performance
    assert not performance.is_valid
    assert any("30 s of min_duration" in reason for reason in performance.reasons)
    run = real_run(SCENARIO="SingleStream", MODE="PerformanceOnly", COUNT_OVERRIDE=3)
    performance = read_result(run.outcome.log_dir).performance
    assert performance.early_stopped_ns == EarlyStopped(p90=None, p99=None)
    assert any("at least 64 queries" in reason for reason in performance.reasons)


def test_rate_over_no_time_is_none(real_run):
    """LoadGen prints -nan and 0 where a single query leaves nothing to divide."""
    for scenario in ("SingleStream", "Server"):
        run = real_run(SCENARIO=scenario, MODE="PerformanceOnly", COUNT_OVERRIDE=1)
        performance = read_result(run.outcome.log_dir).performance
        assert performance.counts.queries == 1
        assert performance.throughput.samples_per_second is None
        assert performance.throughput.queries_per_second is None


@pytest.mark.slow
def test_peak_rate(real_run):
    run = real_run(SCENARIO="Server", MODE="FindPeakPerformance", COUNT_OVERRIDE=60,
                   DURATION=0.02, TARGET_QPS=1000, TARGET_LATENCY=50)  # fmt: skip
    result = read_result(run.outcome.log_dir)
    assert result.mode == "FindPeakPerformance"
    assert result.performance.throughput.peak_qps > 1000


def test_warnings_are_counted(copied):
    path = copied / DETAIL_LOG
    before = path.read_text().count('"CAS failed."')
    warning = (
        ':::MLLOG {"key": "warning_generic_message", "value": "CAS failed.", "time_ms": 1.0, '
        '"metadata": {"is_error": false, "is_warning": true}}\n'
    )
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:20], warning * 24, *lines[20:]]))
    counts = {message.text: message.count for message in read_result(copied).warnings}
    assert counts["CAS failed."] == 24 + before


def test_errors_are_noted(copied):
    change(copied, '"is_error": false', '"is_error": true')
    assert len(read_result(copied).errors) == 20


def test_missing_logs(tmp_path):
    with pytest.raises(UserError, match=rf"{DETAIL_LOG}: no such LoadGen log"):
        read_result(tmp_path)
    with pytest.raises(UserError, match=rf"{ACCURACY_LOG}: no such LoadGen log"):
        list(read_answers(tmp_path))


def test_detail_log_cut_off_anywhere_is_refused(copied):
    whole = (copied / DETAIL_LOG).read_bytes()
    for share in range(20):
        (copied / DETAIL_LOG).write_bytes(whole[: len(whole) * share // 20])
        with pytest.raises(UserError, match=DETAIL_LOG):
            read_result(copied)
    lines = whole.splitlines(keepends=True)
    (copied / DETAIL_LOG).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(UserError, match="num_errors"):
        read_result(copied)


def test_accuracy_log_cut_off_anywhere_is_refused(copied):
    whole = (copied / ACCURACY_LOG).read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in (whole[:-1], whole[:-2], whole[: len(whole) // 2], b"", b"[\n", *(
        b"".join(lines[:count]) for count in (2, 250, len(lines) - 1)
    )):  # fmt: skip
        (copied / ACCURACY_LOG).write_bytes(kept)
        with pytest.raises(UserError, match=ACCURACY_LOG):
            list(read_answers(copied))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("effective_scenario", '"Sideways"'),
        ("effective_scenario", "7"),
        ("result_query_count", "0"),
        ("result_query_count", "-1"),
        ("result_query_count", "true"),
        ("result_query_count", "1e999"),
        ("result_query_count", '"many"'),
        ("result_max_latency_ns", "1"),
        ("result_90.00_percentile_latency_ns", "nan"),
        ("result_qps_with_loadgen_overhead", "[1]"),
        ("power_end", '"yesterday"'),
        ("result_validity", "{"),
        ("loadgen_version", "null"),
        ("early_stopping_latency_ss", "[" * 100_000),
    ],
)
def test_hostile_values_are_refused(copied, key, value):
    change_value(copied, key, value)
    with pytest.raises(UserError, match=DETAIL_LOG):
        read_result(copied)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>\n", b"\xff\xfe\0\n" * 9, b"{}\n"])
def test_foreign_files_are_refused(tmp_path, content):
    for name in (DETAIL_LOG, ACCURACY_LOG):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=DETAIL_LOG):
        read_result(tmp_path)
    with pytest.raises(UserError, match=ACCURACY_LOG):
        list(read_answers(tmp_path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"data" : "', '"data" : "00'),  # float or two values
        ('"data" : "', '"data" : "zz'),
        ('"qsl_idx" : ', '"qsl_idx" : -'),
        ("},\n", "}\n"),
        ("},\n", "},\n]\n["),
    ],
)
def test_foreign_accuracy_entries_are_refused(copied, old, new):
    change(copied, old, new, ACCURACY_LOG)
    with pytest.raises(UserError, match=rf"{ACCURACY_LOG}, line \d"):
        list(read_answers(copied))


def test_labels_are_signed(tmp_path):
    sample = '{ "seq_id" : 0, "qsl_idx" : 3, "data" : "FFFFFFFF" }\n'
    (tmp_path / ACCURACY_LOG).write_text(f"[\n{sample}]\n")
    assert list(read_answers(tmp_path)) == [(3, -1)]


@pytest.mark.slow
def test_large_logs_are_read_in_little_memory(tmp_path):
    """A line of 100 MB and a million samples; in a process of its own, whose peak is measured."""
    with (tmp_path / DETAIL_LOG).open("w") as file:
        file.write(':::MLLOG {"key": "loaded_qsl_set", "value": [')
        for _ in range(100):
            file.write("1," * 500_000)
        file.write("1]}\n")
    with (tmp_path / ACCURACY_LOG).open("w") as file:
        file.write("[\n")
        for index in range(1_000_000):
            end = "," if index < 999_999 else ""
            file.write(f'{{ "seq_id" : {index}, "qsl_idx" : {index}, "data" : "01000000" }}{end}\n')
        file.write("]\n")
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from ck_mlperf.common.errors import UserError\n"
        "from ck_mlperf.results.logs import read_answers, read_result\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before, folder = peak(), Path(sys.argv[1])\n"
        "assert sum(label for _, label in read_answers(folder)) == 1_000_000\n"
        "try: read_result(folder)\n"
        "except UserError as error: assert 'did not finish' in str(error)\n"
        "print(peak() - before)\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert int(printed) < 20 * 1024  # kilobytes
