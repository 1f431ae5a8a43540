"""The runs of a submission, chosen among those that were recorded."""

from __future__ import annotations

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.submission.runs import choose_runs, read_recorded_runs

from ..builders.submission import save_run, save_runs

INVALID = {"loadgen": {"valid": False, "reasons": ["ran 1 s of the 600 s of min_duration"]}}


@pytest.fixture
def entry(tmp_path):
    """An experiment with runs of Offline, all from before 10:00."""
    return save_runs(tmp_path / "local", "some", ["Offline"])


def choose(entry, division="closed", patterns=("some",)):
    return choose_runs(read_recorded_runs([entry.parents[1]], patterns), division)


def test_the_newest_valid_runs_are_taken(entry):
    save_run(entry, "Offline", "performance", 1)
    save_run(entry, "Offline", "performance", 2, verdicts=INVALID)
    save_run(entry, "Offline", "TEST01", 3)
    runs = choose(entry)["Offline"]
    starts = [run.record.timing.start[14:16] for run in runs.list()]
    assert starts == ["01", "00", "03", "00"]
    assert [run.kind for run in runs.list()] == ["performance", "accuracy", "TEST01", "TEST04"]


def test_runs_of_one_file_images_and_batch_belong_together(entry):
    """The newest performance run has no accuracy run of the same model file."""
    other = {"model": {"sha256": "f" * 64}}
    save_run(entry, "Offline", "performance", 5, **other)
    assert choose(entry)["Offline"].performance.record.timing.start.startswith("2026-03-01T10:00")
    for kind in ("accuracy", "TEST01", "TEST04"):
        save_run(entry, "Offline", kind, 6, **other)
    assert choose(entry)["Offline"].performance.record.model.sha256 == "f" * 64


def test_what_is_missing_is_listed(entry):
    save_run(entry, "SingleStream", "performance", verdicts=INVALID)
    save_run(entry, "SingleStream", "accuracy")
    save_run(entry, "SingleStream", "TEST01", engine={"batch": 5})
    with pytest.raises(UserError) as refused:
        choose(entry)
    assert str(refused.value).splitlines() == [
        "runs are missing:",
        "  SingleStream, performance: LoadGen called the newest run INVALID: ran 1 s of the 600 s "
        "of min_duration",
        "  SingleStream, TEST01: no run of the same model file, images, batch and LoadGen. Record "
        "one with --env.CK_LOADGEN_SCENARIO=SingleStream --env.CK_LOADGEN_COMPLIANCE=TEST01",
        "  SingleStream, TEST04: no run. Record one with "
        "--env.CK_LOADGEN_SCENARIO=SingleStream --env.CK_LOADGEN_COMPLIANCE=TEST04",
    ]


def test_closed_says_at_once_that_it_takes_no_such_runs(entry):
    save_run(entry, "SingleStream", "performance", 1, reasons=["the weights are random"])
    said = r"does not accept the runs that are there: the weights are random\. --division=open does"
    with pytest.raises(UserError, match=said):
        choose(entry)
    with pytest.raises(UserError) as refused:
        choose(entry, "open")
    assert "--division=open" not in str(refused.value)


def test_open_wants_no_compliance(tmp_path):
    entry = save_runs(tmp_path / "local", "some", ["Offline"], ["performance", "accuracy"])
    assert choose(entry, "open")["Offline"].tests == {}
    with pytest.raises(UserError, match="Offline, TEST01: no run"):
        choose(entry)


def test_experiments_may_be_many(tmp_path):
    local = tmp_path / "local"
    for kind in ("performance", "accuracy"):
        entry = save_runs(local, f"some.{kind}", ["Offline"], [kind])
    runs = choose(entry, "open", ["some.*"])["Offline"]
    assert [run.entry.name for run in runs.list()] == ["some.performance", "some.accuracy"]


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"name": "mobilenet"}},
        {"engine": {"device": "NVIDIA A100"}},
        {"dataset": {"images_sha256": "c" * 64}},
        {"environment": {"cpu": {"model": "Another"}}},
        {"model": {"weights": "random"}},
    ],
)
def test_a_submission_is_of_one_system(entry, changes):
    save_runs(entry.parents[1], "other", ["MultiStream"], ["accuracy"], **changes)
    with pytest.raises(UserError, match="of 2 systems") as refused:
        choose(entry, patterns=["some", "other"])
    assert "(in other)" in str(refused.value)
    assert "(in some)" in str(refused.value)


def test_a_system_may_have_more_gpus_than_a_scenario_takes(tmp_path):
    entry = tmp_path / "local" / "experiment" / "some"
    for scenario, device in (("SingleStream", "NVIDIA A100"), ("Offline", "8 x NVIDIA A100")):
        for kind in ("performance", "accuracy"):
            save_run(entry, scenario, kind, engine={"device": device})
    assert choose(entry, "open").keys() == {"SingleStream", "Offline"}


def test_runs_that_no_submission_has(tmp_path):
    entry = tmp_path / "local" / "experiment" / "some"
    save_run(entry, "Server", "performance", mode="FindPeakPerformance")
    with pytest.raises(UserError, match="no run in PerformanceOnly or AccuracyOnly"):
        choose(entry)
