"""`ck-mlperf analyze` and `ck-mlperf compare` of two experiments."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from ck_mlperf.common.errors import UserError


@pytest.fixture(autouse=True)
def experiments(local, record, save_point):
    """Two experiments of three runs each."""
    for name, batch in (("mine", 8), ("theirs", 32)):
        record["engine"]["batch"] = batch
        save_point(record, record, record, experiment=name)


def test_all_is_shown(command):
    text = command("analyze")
    assert text.count("MultiStream") == 2
    assert text.startswith("digits fp32 | onnxruntime-cpu")


def test_one_experiment_is_shown(command):
    assert command("analyze", "theirs").count("MultiStream") == 1


def test_a_query(command):
    text = command("analyze", "--query=SELECT batch, n FROM points ORDER BY batch")
    assert [line.split() for line in text.splitlines()] == [["batch", "n"], ["8", "3"], ["32", "3"]]


def test_exports(command, tmp_path):
    path = tmp_path / "runs.csv"
    assert command("analyze", f"--out_file={path}") == f"{path}: 6 runs\n"
    assert len(path.read_text().splitlines()) == 7
    command("analyze", f"--out_file={path}", "--query=SELECT 1 AS one")
    assert path.read_text() == "one\n1\n"


def test_another_repository_beside_the_local_one(command, tmp_path, save_point, record):
    other = tmp_path / "other"
    save_point(record, experiment="more", repository=other)
    count = "--query=SELECT count(DISTINCT experiment) AS n FROM runs"
    assert command("analyze", count).split() == ["n", "2"]
    assert command("analyze", count, f"--repository={other}").split() == ["n", "3"]


def test_a_reader_that_goes_away(library_environment, local):
    with subprocess.Popen(
        [sys.executable, "-m", "ck_mlperf", "analyze"],
        env=library_environment | {"CK_LOCAL_REPO": str(local)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGPIPE


def test_a_comparison_as_text_and_as_json(command):
    assert "batch: 8 -> 32" in command("compare", "mine", "theirs")
    for words in (["--json", "mine", "theirs"], ["mine", "theirs", "--json=yes"]):
        compared = json.loads(command("compare", *words))
        assert compared["differs"] == {"batch": {"a": [8], "b": [32]}}
    assert command("compare", "mine", "theirs", "--json=no").startswith("A: mine")


def test_a_comparison_with_what_has_no_speed(command, save_point, record):
    record.update(throughput=None, latencies_ns=None, counts=None, mode="AccuracyOnly")
    save_point(record, experiment="accuracy")
    with pytest.raises(UserError, match="accuracy: no run in it measured a speed"):
        command("compare", "mine", "accuracy")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["analyze", "--quer=SELECT"], "no such option: --quer; did you mean --query?"),
        (["analyze", "--quer=SELECT 1"], "no such option: --quer; did you mean --query?"),
        (["analyze", "--csv=a.csv", "--x=y"], "no such option: --csv\n  no such option: --x\n"),
        (["compare", "mine"], "ck-mlperf compare: error: the following arguments are required: B"),
        (["compare", "mine", "theirs", "more"], "unrecognized arguments: more"),
        (["compare", "mine", "theirs", "--json=maybe"], "want yes or no, not 'maybe'"),
    ],
)
def test_options_that_there_are_not(refused, words, said):
    assert said in refused(*words)
