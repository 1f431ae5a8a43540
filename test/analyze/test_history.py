"""One configuration over commits and dates."""

import io
from datetime import datetime, timedelta, timezone

import pytest
from rich.console import Console

from ck_mlperf.analyze.history import (
    describe_series,
    find_newest,
    list_newest_runs,
    trace_history,
)
from ck_mlperf.analyze.show_history import show_history

COMMITS = [digit * 40 for digit in "abcd"]
START = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


@pytest.fixture
def measure(row):
    """measure(day, commit, p99 in ms, ...): three runs of MultiStream, 1% apart."""

    def make(day: int, commit: str | None, p99_ms: float, **columns):
        return [
            row(
                start=START + timedelta(days=day, minutes=number),
                commit=commit,
                latency_p99_ns=p99_ms * 1e6 * (1 + 0.01 * number),
                **columns,
            )
            for number in range(3)
        ]

    return make


def test_each_entry_is_compared_with_the_one_before(measure):
    runs = [
        *measure(9, COMMITS[1], 2.0),  # not in the order of time
        *measure(0, COMMITS[0], 1.0),
        *measure(10, COMMITS[1] + "+", 2.0),
        *measure(11, COMMITS[2], 1.0),
    ]
    (series,) = trace_history(runs)
    assert series.column == "latency_p99_ns"
    assert [(entry.date, entry.commit) for entry in series.entries] == [
        ("2026-03-01", COMMITS[0]),
        ("2026-03-10", COMMITS[1]),
        ("2026-03-11", COMMITS[1] + "+"),
        ("2026-03-12", COMMITS[2]),
    ]
    first, *others = [entry.interval for entry in series.entries]
    assert first is None
    assert [interval.verdict for interval in others] == ["slower", "cannot tell", "faster"]
    assert [interval.ratio for interval in others] == pytest.approx([0.5, 1.0, 2.0])


@pytest.mark.parametrize(
    "change",
    [
        {"model": "resnet"}, {"precision": "int8"}, {"engine": "tensorrt"}, {"gpu": "RTX"},
        {"scenario": "Server", "target_qps": 10.0}, {"batch": 4}, {"dataset": "imagenet"},
        {"images": 100}, {"settings": "CK_LOADGEN_BUFFER_SIZE=7"}, {"cores": 64},
    ],
)  # fmt: skip
def test_another_configuration_is_another_series(measure, change):
    runs = [*measure(0, COMMITS[0], 1.0), *measure(1, COMMITS[1], 9.0, **change)]
    assert [len(series.entries) for series in trace_history(runs)] == [1, 1]


def test_versions_are_gone_across_and_named(measure):
    runs = [
        *measure(0, COMMITS[0], 1.0, engine_version="10.1", driver="550"),
        *measure(0, COMMITS[0], 1.0, engine_version="10.2", driver="550", model_sha256="f" * 64),
    ]
    (series,) = trace_history(runs)
    assert [entry.changes.get("engine_version") for entry in series.entries] == [
        None,
        ("10.1", "10.2"),
    ]
    assert series.entries[1].changes.keys() == {"engine_version", "model_sha256"}


def test_runs_without_a_commit_are_told_apart_by_date(measure):
    (series,) = trace_history([*measure(0, None, 1.0), *measure(1, None, 1.0)])
    assert [(entry.date, entry.commit) for entry in series.entries] == [
        ("2026-03-01", None),
        ("2026-03-02", None),
    ]


def test_the_newest_commit_alone_is_judged(measure, row):
    abandoned = [*measure(0, COMMITS[0], 1.0, batch=1), *measure(1, COMMITS[1], 2.0, batch=1)]
    current = [*measure(0, COMMITS[0], 1.0), *measure(5, COMMITS[3], 1.0)]
    failed = dict(error="it broke", samples_per_second=None, commit=None)
    old_failure = row(**failed, start=START)
    new_failure = row(**failed, start=START + timedelta(days=6))
    runs = [*abandoned, *current, old_failure, new_failure]
    series = trace_history(runs)
    assert [one.configuration["batch"] for one in find_newest(series)] == [32]
    judged = list(list_newest_runs(series, runs))
    assert [run.commit for run in judged] == [COMMITS[3]] * 3 + [None]
    assert judged[-1] is new_failure
    assert find_newest([]) == list(list_newest_runs([], [])) == []


def test_the_table(measure):
    runs = [
        *measure(0, COMMITS[0], 1.0),
        *measure(1, COMMITS[1] + "+", 2.0, engine_version="10.2"),
        *measure(1, COMMITS[1], 2.0, batch=4),
    ]
    console = Console(file=io.StringIO(), width=80, highlight=False)
    show_history(trace_history(runs), console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "digits fp32 on onnxruntime-cpu, MultiStream, 8 samples a query, batch 32"
    assert "date commit n p99 ms times as fast it is" in lines
    assert "2026-03-01 aaaaaaaaaaaa 3 1.01 -" in lines
    assert any(line.startswith("2026-03-02 bbbbbbbbbbbb+ 3 2.02 0.500 (0.4") for line in lines)
    assert any(line.endswith(") slower") for line in lines)
    assert "2026-03-02 bbbbbbbbbbbb+: engine_version 1.32.0 -> 10.2" in lines
    assert "1 configuration was measured at one commit on one date only." in lines


def test_as_json(measure):
    runs = [*measure(0, COMMITS[0], 1.0), *measure(1, COMMITS[1], 2.0)]
    described = describe_series(trace_history(runs)[0])
    assert described["configuration"]["batch"] == 32
    assert described["compared"] == "latency_p99_ns"
    entry = described["entries"][1]
    assert (entry["date"], entry["commit"], entry["verdict"]) == (
        "2026-03-02",
        COMMITS[1],
        "slower",
    )
    assert entry["values"] == pytest.approx([2.0e6, 2.02e6, 2.04e6])
    assert entry["median"] == pytest.approx(2.02e6)
    assert entry["times_as_fast"] == pytest.approx(0.5)
