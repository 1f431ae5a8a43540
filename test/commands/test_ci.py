"""`analyze` and `compare` for CI: JSON, conditions, exit codes."""

from __future__ import annotations

import json

import pytest

from ck_mlperf.common.errors import UserError

from ..builders.records import FAILURE, make_json

OLD, NEW = "a" * 40, "b" * 40


def make(p99_ms: float, start: str = "2026-03-01", commit: str = OLD, valid: bool = True):
    """A run of MultiStream."""
    return make_json(
        latencies_ns={"p99": round(p99_ms * 1e6)},
        timing={"start": f"{start}T10:30:00+00:00"},
        environment={"repository": {"commit": commit, "clean": True}},
        verdicts={"loadgen": {"valid": valid}},
    )


@pytest.fixture(autouse=True)
def experiments(local, save_point):
    """`nightly` is 10% slower at the newest commit; `broken` has an INVALID run."""
    save_point(*(make(ms) for ms in (1.0, 1.001, 1.002)), experiment="before")
    save_point(*(make(ms) for ms in (1.111, 1.112, 1.113)), experiment="after")
    save_point(*(make(ms) for ms in (1.0, 1.001, 1.002)), experiment="nightly")
    newest = [make(ms, "2026-03-02", NEW) for ms in (1.111, 1.112, 1.113)]
    save_point(*newest, experiment="nightly")
    save_point(make(1.0), make(1.0, valid=False), make(1.0), experiment="broken")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["compare", "before", "after"], 0),
        (["compare", "before", "after", "--fail_on=slower"], 1),
        (["compare", "before", "after", "--fail_on=slower:5%"], 1),
        (["compare", "before", "after", "--fail_on=slower:20%"], 0),
        (["compare", "after", "before", "--fail_on=slower"], 0),
        (["compare", "before", "after", "--fail_on=invalid"], 0),
        (["compare", "before", "broken", "--fail_on=invalid"], 1),
        (["compare", "broken", "before", "--fail_on=invalid"], 0),
        (["compare", "before", "after", "--json", "--fail_on=invalid,slower:5%"], 1),
        (["analyze", "broken"], 0),
        (["analyze", "broken", "--fail_on=invalid"], 1),
        (["analyze", "before", "--fail_on=invalid"], 0),
        (["analyze", "nightly", "--history"], 0),
        (["analyze", "nightly", "--history", "--fail_on=slower:5%"], 1),
        (["analyze", "nightly", "--history", "--fail_on=slower:20%,invalid"], 0),
    ],
)
def test_exit_codes(command, words, code):
    command(*words, code=code)


def test_the_reason_is_on_stderr(command, capsys, local):
    assert json.loads(command("compare", "before", "after", "--json", "--fail_on=slower", code=1))
    from ck_mlperf.commands import main

    assert main(["compare", "before", "after", "--fail_on=slower"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("slower: digits fp32 on onnxruntime-cpu, MultiStream, 8 samples a query")
    assert "0.900 times as fast" in said


def test_a_run_that_failed_is_invalid(command, local):
    (local / "experiment" / "before" / "failed-1.json").write_text(json.dumps(FAILURE))
    command("analyze", "before", "--fail_on=invalid", code=1)
    command("compare", "after", "before", "--fail_on=invalid", code=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["analyze", "before", "--fail_on=slower"], "slower: than what"),
        (["analyze", "before", "--history", "--fail_on=slower"], "nothing to compare with"),
        (["analyze", "--history", "--query=SELECT 1"], "--history has no --query"),
        (["analyze", "--json", "--out_file=a.csv"], "--json prints"),
    ],
)
def test_what_cannot_be_judged_is_no_success(command, words, said):
    with pytest.raises(UserError, match=said):
        command(*words)


def test_a_condition_that_there_is_not(refused):
    said = refused("compare", "before", "after", "--fail_on=slow")
    assert "want slower, slower:5% or invalid" in said


def test_the_json_of_an_analysis(command):
    document = json.loads(command("analyze", "nightly", "broken", "--json"))
    assert (document["format"], document["version"]) == ("ck-mlperf.analysis", 1)
    assert document["fail_on_met"] == document["passed_over"] == document["other_runs"] == []
    (point,) = document["points"]
    assert point["configuration"]["batch"] == 32
    assert point["loadgen_verdict"] == "MIXED"
    assert point["latency_ms"]["percentile"] == "p99"
    assert point["samples_per_second"].keys() == {"low", "median", "high"}
    assert {doubt["kind"] for doubt in point["doubts"]} >= {"verdict"}
    assert [run["number"] for run in point["runs"]] == list(range(1, 10))
    assert point["runs"][0]["start"] == "2026-03-01T10:30:00+00:00"
    assert {run["point"] for run in point["runs"]} == {point["id"]}


def test_the_json_of_the_others(command):
    query = "--query=SELECT count(*) AS n, 'inf'::DOUBLE AS x, now()::TIMESTAMP AS t FROM runs"
    document = json.loads(command("analyze", "nightly", "--json", query))
    assert document["format"] == "ck-mlperf.answer"
    assert document["columns"] == ["n", "x", "t"]
    assert document["rows"][0][:2] == [6, None]
    document = json.loads(command("analyze", "nightly", "--json", "--history"))
    assert document["format"] == "ck-mlperf.history"
    assert [entry["commit"] for entry in document["series"][0]["entries"]] == [OLD, NEW]
    document = json.loads(command("compare", "before", "after", "--json"))
    assert (document["format"], document["version"]) == ("ck-mlperf.comparison", 1)
    assert document["pairs"][0]["verdict"] == "slower"
