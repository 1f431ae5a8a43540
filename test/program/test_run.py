"""`ck run` and `ck benchmark` of the program as a user types them, on the embedded default."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from ck_mlperf.results.experiments import read_records
from ck_mlperf.results.kept_logs import read_kept

PROGRAM = "program:image-classification-tensorrt-loadgen-py"
SCENARIOS = ["SingleStream", "MultiStream", "Server", "Offline"]


def read_record(ck):
    return json.loads((ck.tmp / "record.json").read_text())


def test_default_run_is_accurate_and_says_what_it_is(ck):
    printed = ck("run", PROGRAM, "--skip_print_timers").stdout
    percent, good, total = re.search(
        r"^-+\naccuracy=([\d.]+)%, good=(\d+), total=(\d+)\n-+$", printed, re.MULTILINE
    ).groups()
    assert total == "500"
    assert float(percent) >= 97
    assert float(percent) == pytest.approx(int(good) / 5)
    record = read_record(ck)
    assert record["engine"]["name"] == "onnxruntime-cpu"
    assert record["dataset"]["name"] == "digits"
    assert record["model"]["name"] == "digits"
    about = (ck.tmp / "report.txt").read_text().splitlines()[1]
    assert "digits" in about
    assert "not ImageNet" in about
    assert "not TensorRT" in about
    assert (ck.tmp / "mlperf_log_summary.txt").exists()
    assert (ck.tmp / "mlperf_log_detail.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_performance_run(ck, scenario):
    flags = {"CK_LOADGEN_SCENARIO": scenario, "CK_LOADGEN_MODE": "PerformanceOnly"}
    flags |= {"CK_LOADGEN_DURATION": "1"}
    if scenario == "Server":
        flags |= {"CK_LOADGEN_TARGET_QPS": "50"}
    printed = ck("run", PROGRAM, *(f"--env.{k}={v}" for k, v in flags.items())).stdout
    assert "LATENCIES (in nanoseconds and fps)" in printed
    for line in ("min", "median", "average", "90 percentile", "max"):
        assert re.search(rf"\b{line}\b", printed), line
    record = read_record(ck)
    assert record["scenario"] == scenario
    assert record["accuracy"] is None
    latencies = record["latencies_ns"]
    assert 0 < latencies["min"] <= latencies["p50"] <= latencies["p99"] <= latencies["max"]
    official = [v for v in record["verdicts"]["rules"] if v["valid"]]
    assert not official, "digits can never meet MLPerf's rules"


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_accuracy_is_the_same_in_every_scenario(ck, scenario):
    batch = [] if scenario == "SingleStream" else ["--env.CK_BATCH_SIZE=7"]
    ck("run", PROGRAM, f"--env.CK_LOADGEN_SCENARIO={scenario}", *batch,
       "--env.CK_LOADGEN_BUFFER_SIZE=64")  # fmt: skip
    record = read_record(ck)
    assert record["accuracy"]["total"] == 500
    assert record["accuracy"]["top1_percent"] >= 97
    assert record["accuracy"]["top5_percent"] >= record["accuracy"]["top1_percent"]


def test_submission_run_gives_accuracy_and_latencies(ck, tmp_path):
    """And what else the user gives: other variables, and lines of user.conf for other models."""
    conf = tmp_path / "user.conf"
    conf.write_text("yolo.Offline.target_qps = 9\nbart.Offline.target_qps = 9\n")
    printed = ck("run", PROGRAM, "--env.CK_LOADGEN_MODE=SubmissionRun",
                 "--env.CK_LOADGEN_DURATION=1", f"--env.CK_LOADGEN_CONF_FILE={conf}",
                 "--env.CUDA_VISIBLE_DEVICES=0", "--env.MY_TOKEN=abc").stdout  # fmt: skip
    assert "line 2: passed over, LoadGen 6.0.17 knows no model 'bart'" in printed
    assert "| model digits fp32 on ONNX Runtime CPU" in printed
    record = read_record(ck)
    assert record["accuracy"]["total"] == 500
    assert record["latencies_ns"]["p50"] > 0
    assert record["model"]["precision"] == "fp32"
    passed = {"CUDA_VISIBLE_DEVICES": "0", "MY_TOKEN": "(not recorded)"}
    assert record["settings"]["passed"] == passed


@pytest.mark.slow
def test_run_with_the_flags_of_2019(ck):
    """Word for word, with a model that is there in place of the plan."""
    conf = ck.root / "program" / "image-classification-tensorrt-loadgen-py" / "user.conf"
    flags = [
        "--skip_print_timers",
        "--env.CK_SILENT_MODE",
        "--env.CK_LOADGEN_MODE=AccuracyOnly",
        "--env.CK_LOADGEN_SCENARIO=MultiStream",
        "--env.CK_LOADGEN_MULTISTREAMNESS=32",
        "--env.CK_BATCH_SIZE=32",
        "--env.CK_LOADGEN_DATASET_SIZE=500",
        "--env.CK_LOADGEN_BUFFER_SIZE=500",
        f"--env.CK_LOADGEN_CONF_FILE={conf}",
    ]
    ck("run", PROGRAM, *flags, "--dep_add_tags.weights=model,onnx,digits")
    record = read_record(ck)
    assert record["accuracy"]["total"] == 500
    assert record["settings"]["loadgen"]["multi_stream_samples_per_query"] == 32
    assert json.loads((ck.tmp / "job.json").read_text())["settings"] == {
        "CK_SILENT_MODE": True,
        "CK_LOADGEN_MODE": "AccuracyOnly",
        "CK_LOADGEN_SCENARIO": "MultiStream",
        "CK_LOADGEN_MULTISTREAMNESS": 32,
        "CK_BATCH_SIZE": 32,
        "CK_LOADGEN_DATASET_SIZE": 500,
        "CK_LOADGEN_BUFFER_SIZE": 500,
        "CK_LOADGEN_CONF_FILE": str(conf),
    }
    repeat = [sys.executable, "../run.py", "job.json"]
    environment = ck.environment | {"PYTHONPATH": str(ck.root / "src")}
    subprocess.run(repeat, cwd=ck.tmp, env=environment, check=True)
    repeated = read_record(ck)
    for part in ("program", "settings", "accuracy", "model", "dataset", "deps"):
        assert repeated[part] == record[part]


BENCHMARK_2019 = [
    "--repetitions=1", "--env.CK_SILENT_MODE",
    "--env.CK_LOADGEN_MODE=PerformanceOnly", "--env.CK_LOADGEN_SCENARIO=MultiStream",
    "--env.CK_LOADGEN_MULTISTREAMNESS=30", "--env.CK_BATCH_SIZE=30",
    "--env.CK_LOADGEN_COUNT_OVERRIDE=1440", "--env.CK_LOADGEN_DATASET_SIZE=500",
    "--env.CK_LOADGEN_BUFFER_SIZE=1024", "--dep_add_tags.weights=model,onnx,digits",
    "--record", "--record_repo=local",
    "--record_uoa=mlperf.closed.image-classification.onnx.digits.multistream.performance",
    "--tags=mlperf,closed,image-classification,onnx,digits,multistream,performance",
    "--skip_print_timers", "--skip_stat_analysis", "--process_multi_keys", "--sleep=0",
]  # fmt: skip


def read_points(ck, name: str) -> list[dict]:
    files = sorted((ck.experiments / name).glob("ckp-*.0001.json"))
    return [json.loads(path.read_text())["characteristics_list"][0]["run"] for path in files]


@pytest.mark.slow
def test_benchmark_records_a_point_that_meets_the_schema(ck, repository: Path):
    ck("benchmark", PROGRAM, *BENCHMARK_2019)
    name = next(f for f in BENCHMARK_2019 if f.startswith("--record_uoa="))[len("--record_uoa=") :]
    (point,) = read_points(ck, name)
    schema = json.loads((repository / "src/ck_mlperf/results/record.schema.json").read_text())
    record = read_record(ck)
    jsonschema.validate(record, schema)
    assert {key: point[key] for key in record} == record
    assert record["settings"]["loadgen"]["min_query_count"] == 1440
    keys = {dep["key"] for dep in record["deps"]}
    assert {"weights", "images", "python", "lib-python-loadgen", "engine"} <= keys
    (weights,) = [dep for dep in record["deps"] if dep["key"] == "weights"]
    assert {"model", "onnx", "digits"} <= set(weights["tags"])
    tags = json.loads((ck.experiments / name / ".cm" / "meta.json").read_text())["tags"]
    assert "multistream" in tags


@pytest.mark.slow
def test_second_benchmark_adds_a_point_and_the_logs_of_each_repetition_are_kept(ck):
    conf = ck.root / "program" / "image-classification-tensorrt-loadgen-py" / "user.conf"
    changed = ("--record_uoa", "--repetitions", "--env.CK_LOADGEN_COUNT_OVERRIDE")
    flags = [f for f in BENCHMARK_2019 if not f.startswith(changed)]
    flags += [f"--env.CK_LOADGEN_CONF_FILE={conf}", "--env.CK_LOADGEN_COUNT_OVERRIDE=20"]
    for _ in range(2):
        ck("benchmark", PROGRAM, *flags, "--record_uoa=two-points", "--repetitions=2")
    entry = ck.experiments / "two-points"
    points = [read_records(path) for path in sorted(entry.glob("ckp-*.0001.json"))]
    assert [len(repetitions) for repetitions in points] == [2, 2]
    logs = [log for repetitions in points for record in repetitions for log in record.logs]
    details = [read_kept(entry, log) for log in logs if log.file == "mlperf_log_detail.txt"]
    assert len(set(details)) == 4
    assert all(len(read_kept(entry, log)) == log.bytes for log in logs)
    assert read_kept(entry, points[0][0].settings.user_conf) == conf.read_bytes()
