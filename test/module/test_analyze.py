"""`ck analyze`, `ck compare`, `ck report` and `ck serve loadgen` of runs that CK has recorded."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
from urllib.request import urlopen

import pytest

pytestmark = pytest.mark.slow

PROGRAM = "program:image-classification-tensorrt-loadgen-py"
BATCHES = {"analyze.small": 4, "analyze.large": 8}
REPETITIONS = 3


@pytest.fixture(scope="module")
def recorded(ck):
    """CK with two experiments of three runs each."""
    for name, batch in BATCHES.items():
        ck(
            "benchmark",
            PROGRAM,
            f"--repetitions={REPETITIONS}",
            "--env.CK_SILENT_MODE",
            "--env.CK_LOADGEN_MODE=PerformanceOnly",
            "--env.CK_LOADGEN_SCENARIO=MultiStream",
            "--env.CK_LOADGEN_COUNT_OVERRIDE=50",
            f"--env.CK_BATCH_SIZE={batch}",
            "--record",
            "--record_repo=local",
            f"--record_uoa={name}",
            "--skip_print_timers",
            "--skip_stat_analysis",
            "--process_multi_keys",
            "--sleep=0",
        )
    return ck


def test_points_are_shown(recorded):
    shown = recorded("analyze", "loadgen", "analyze.*").stdout
    rows = [line.split() for line in shown.splitlines() if "MultiStream" in line]
    assert [(row[3], row[6]) for row in rows] == [("4", "3"), ("8", "3")]
    assert "no official result: the images are" in shown
    assert shown.startswith("digits fp32 | onnxruntime-cpu ")  # nothing of CK's before it


def test_a_submission_of_them_says_what_is_missing(recorded, tmp_path):
    words = ("--division=closed", "--submitter=Acme", f"--system={tmp_path / 'system.yaml'}")
    said = recorded("submit", "loadgen", "analyze.small", *words, code=2).stderr
    assert "\n  MultiStream, performance: LoadGen called the newest run INVALID: " in said
    assert "\n  MultiStream, TEST01: no run. Record one with --env.CK_LOADGEN_SCENARIO=" in said
    assert "does not accept the runs that are there: the images are 500 of digits" in said


def test_a_query_and_its_export(recorded, tmp_path):
    query = "SELECT batch, n, samples_per_second > 0 AS fast FROM points ORDER BY batch"
    printed = recorded("analyze", "loadgen", "analyze.*", f"--query={query}").stdout
    assert [line.split() for line in printed.splitlines()] == [
        ["batch", "n", "fast"],
        ["4", "3", "True"],
        ["8", "3", "True"],
    ]
    path = tmp_path / "points.csv"
    recorded("analyze", "loadgen", "analyze.*", f"--query={query}", f"--out_file={path}")
    with path.open(newline="") as file:
        assert list(csv.reader(file))[1:] == [["4", "3", "true"], ["8", "3", "true"]]


def test_the_runs_are_exported_with_the_commands_that_repeat_them(recorded, tmp_path):
    path = tmp_path / "runs.csv"
    recorded("analyze", "loadgen", "analyze.small", f"--out_file={path}")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == REPETITIONS
    command = rows[0]["command"].split()
    assert command[:3] == ["ck", "benchmark", PROGRAM]
    assert "--env.CK_BATCH_SIZE=4" in command
    repeated = recorded(*command[1:], "--env.CK_LOADGEN_COUNT_OVERRIDE=10", "--sleep=0")
    assert "digits (500 handwritten digits" in repeated.stdout


def test_two_experiments_are_compared(recorded):
    printed = recorded("compare", "loadgen", *BATCHES, "--json").stdout
    compared = json.loads(printed)
    assert compared["differs"] == {"batch": {"a": [4], "b": [8]}}
    (pair,) = compared["pairs"]
    assert pair["verdict"] in ("faster", "slower", "cannot tell")
    assert len(pair["a"]["values"]) == len(pair["b"]["values"]) == REPETITIONS
    low, high = pair["interval_95"]
    assert 0 < low <= pair["times_as_fast"] <= high


def test_a_report_is_written(recorded, tmp_path):
    page, plots = tmp_path / "report.html", tmp_path / "plots"
    printed = recorded(
        "report", "loadgen", "analyze.*", f"--out_file={page}", f"--plots={plots}", "--format=svg"
    ).stdout
    assert printed.splitlines()[0].startswith(f"{page}: 2 points of 6 runs, ")
    assert page.read_text().count('<tbody class="point"') == 2
    assert "throughput-multistream-digits.svg" in [path.name for path in plots.iterdir()]
    page.write_text("precious")
    assert "--force" in recorded("report", "loadgen", f"--out_file={page}", code=2).stderr
    recorded("report", "loadgen", f"--out_file={page}", "--force")
    assert page.read_text() != "precious"


def test_a_report_is_served_until_ctrl_c(recorded):
    server = subprocess.Popen(
        ["ck", "serve", "loadgen", "analyze.*", "--port=0"],
        env=recorded.environment,
        cwd=recorded.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = server.stdout.readline().split()[0]
        with urlopen(address) as answer:
            assert "2 points from 6 recorded runs" in answer.read().decode()
        server.send_signal(signal.SIGINT)
        printed, talk = server.communicate(timeout=20)
        assert (server.returncode, printed) == (0, "")
        assert "Traceback" not in talk  # CK's, where it installed a library
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["analyze", "loadgen", "--quer=1"], "no such option: --quer; did you mean --query?"),
        (["analyze", "loadgen", "analyze.medium"], "no experiment has the name analyze.medium"),
        (["analyze", "loadgen", "--query=SELECT * FROM '/etc/passwd'"], "--query: "),
        (["compare", "loadgen", "analyze.small"], "arguments are required: B"),
        (["report", "loadgen", "--format=pdf"], "invalid choice: 'pdf'"),
        (["serve", "loadgen", "--port=http"], "want a port from 0 to 65535, not 'http'"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(recorded, words, said):
    failed = recorded(*words, code=2)
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr
    assert failed.stdout == ""
