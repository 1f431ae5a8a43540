"""The commands as CK starts them: `python -m ck_mlperf.analyze ACTION --KEY=VALUE...`."""

import json
import os
import signal
import subprocess
import sys

import pytest

from ck_mlperf.analyze.__main__ import main
from ck_mlperf.common.errors import UserError


@pytest.fixture
def analyze(tmp_path, record, save_point, capsys):
    """analyze(option, ...): what `ck analyze loadgen` prints about two experiments."""
    for name, batch in (("mine", 8), ("theirs", 32)):
        record["engine"]["batch"] = batch
        save_point(record, record, record, experiment=name)

    def run(*options: str, action: str = "analyze") -> str:
        assert main([action, f"--repository={tmp_path / 'local'}", *options]) == 0
        return capsys.readouterr().out

    return run


def test_all_is_shown(analyze):
    text = analyze()
    assert text.count("MultiStream") == 2
    assert text.startswith("digits fp32 | onnxruntime-cpu")


def test_one_experiment_is_shown(analyze):
    assert analyze("theirs").count("MultiStream") == 1


def test_a_query(analyze):
    text = analyze("--query=SELECT batch, n FROM points ORDER BY batch")
    assert [line.split() for line in text.splitlines()] == [["batch", "n"], ["8", "3"], ["32", "3"]]


def test_exports(analyze, tmp_path):
    path = tmp_path / "runs.csv"
    assert analyze(f"--out_file={path}") == f"{path}: 6 runs\n"
    assert len(path.read_text().splitlines()) == 7
    analyze(f"--out_file={path}", "--query=SELECT 1 AS one")
    assert path.read_text() == "one\n1\n"


def test_another_repository_beside_the_local_one(analyze, tmp_path, save_point, record):
    other = tmp_path / "other"
    save_point(record, experiment="more", repository=other)
    count = "--query=SELECT count(DISTINCT experiment) AS n FROM runs"
    assert analyze(count).split() == ["n", "2"]
    assert analyze(count, f"--repository={other}").split() == ["n", "3"]


def test_a_reader_that_goes_away(analyze, tmp_path):
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ck_mlperf.analyze",
            "analyze",
            f"--repository={tmp_path / 'local'}",
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGPIPE


def test_a_comparison_as_text_and_as_json(analyze):
    assert "batch: 8 -> 32" in analyze("mine", "theirs", action="compare")
    for flag in ("--json", "--json=yes"):
        compared = json.loads(analyze("mine", "theirs", flag, action="compare"))
        assert compared["differs"] == {"batch": {"a": [8], "b": [32]}}
    assert analyze("mine", "theirs", "--json=no", action="compare").startswith("A: mine")


def test_a_comparison_with_what_has_no_speed(analyze, save_point, record):
    record.update(throughput=None, latencies_ns=None, counts=None, mode="AccuracyOnly")
    save_point(record, experiment="accuracy")
    with pytest.raises(UserError, match="accuracy: no run in it measured a speed"):
        analyze("mine", "accuracy", action="compare")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["analyze", "--quer=SELECT"], "ck analyze loadgen: error: unrecognized arguments"),
        (["analyze", "--quer=SELECT 1"], "there is no such option: --quer=SELECT 1"),
        (["analyze", "--csv=a.csv", "--x=y"], "unrecognized arguments: --csv=a.csv --x=y"),
        (["compare", "mine"], "ck compare loadgen: error: the following arguments are required: B"),
        (["compare", "mine", "theirs", "more"], "unrecognized arguments: more"),
        (["compare", "mine", "theirs", "--json=maybe"], "want yes or no, not 'maybe'"),
    ],
)
def test_options_that_there_are_not(options, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main([options[0], "--repository=.", *options[1:]])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
