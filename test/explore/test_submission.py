"""`ck explore loadgen --submission=` around a `ck` that records made-up runs."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.explore.runs import ScheduledRun
from ck_mlperf.explore.submission import read_submission
from ck_mlperf.submission.runs import read_recorded_runs

if TYPE_CHECKING:
    from .conftest import FakeCk

EDGE = ("--submission=edge", "--name=s")
OFFLINE = (*EDGE, "--scenario=Offline")
SERVER = ("--submission=datacenter-edge", "--name=s", "--scenario=Server")
EACH = ["accuracy", "performance", "TEST01", "TEST04"]


def list_measured(options: dict[str, Any]) -> dict[str, list[str]]:
    """What the runs of a submission measure, by scenario."""
    measured: dict[str, list[str]] = {}
    for run in read_submission(options).list_runs():
        measured.setdefault(run.configuration.scenario, []).append(run.measures)
    return measured


def find_run(options: dict[str, Any], scenario: str, measures: str) -> ScheduledRun:
    (run,) = (
        run
        for run in read_submission(options).list_runs()
        if (run.configuration.scenario, run.measures) == (scenario, measures)
    )
    return run


def test_what_a_submission_needs() -> None:
    edge = dict.fromkeys(("SingleStream", "MultiStream", "Offline"), EACH)
    assert list_measured({"submission": "edge"}) == edge
    assert list_measured({"submission": "datacenter-edge"}) == {**edge, "Server": EACH}


def test_accuracy_comes_first() -> None:
    runs = read_submission({"submission": "datacenter-edge"}).list_runs()
    assert [run.measures for run in runs[:5]] == 4 * ["accuracy"] + ["performance"]


def test_the_runs_are_as_the_rules_ask() -> None:
    options = {"submission": "datacenter-edge", "batch": "64", "qps": "500", "model": "resnet50"}
    run = find_run(options, "MultiStream", "TEST04")
    assert run.environment == {
        "CK_BATCH_SIZE": "8",
        "CK_EXPLORE_RUN": run.id,
        "CK_LOADGEN_COMPLIANCE": "TEST04",
        "CK_LOADGEN_DURATION": "600",
        "CK_LOADGEN_MODE": "PerformanceOnly",
        "CK_LOADGEN_MULTISTREAMNESS": "8",
        "CK_LOADGEN_SCENARIO": "MultiStream",
    }
    assert "--tags=explore,loadgen,submission" in run.argv
    assert run.description == "resnet50 onnx, MultiStream, batch 8, TEST04"
    server = find_run(options, "Server", "performance")
    assert server.environment["CK_BATCH_SIZE"] == "64"
    assert server.environment["CK_LOADGEN_TARGET_QPS"] == "500"
    assert server.environment["CK_LOADGEN_DURATION"] == "600"
    accuracy = find_run(options, "SingleStream", "accuracy")
    assert accuracy.environment["CK_LOADGEN_MODE"] == "AccuracyOnly"
    assert not {"CK_LOADGEN_DURATION", "CK_LOADGEN_COMPLIANCE"} & accuracy.environment.keys()
    longer = find_run({**options, "duration": "1200"}, "Offline", "TEST01")
    assert longer.environment["CK_LOADGEN_DURATION"] == "1200"


def test_inferred_scenarios_are_not_run_and_are_named() -> None:
    options = {"submission": "edge", "infer": "MultiStream,Offline"}
    assert list_measured(options) == {"SingleStream": EACH}
    submission = read_submission(options)
    assert submission.define()["inferred"] == ["MultiStream", "Offline"]
    assert "not run, but inferred from SingleStream: MultiStream, Offline" in (
        submission.list_notes()
    )


def test_scenarios_that_are_left_out_are_named() -> None:
    submission = read_submission({"submission": "datacenter-edge", "scenario": "Server"})
    assert "a submission also needs MultiStream, Offline, SingleStream" in submission.list_notes()


def test_a_rehearsal_is_short_and_marked() -> None:
    options = {"submission": "edge", "rehearse": "yes"}
    submission = read_submission(options)
    assert submission.name == "rehearsal.digits.edge"
    assert submission.define()["rehearsal"] is True
    assert any("A REHEARSAL, 2 s a run" in note for note in submission.list_notes())
    for run in submission.list_runs():
        assert run.id.startswith("rehearsal-")
        assert "--tags=explore,loadgen,rehearsal" in run.argv
    run = find_run(options, "Offline", "performance")
    assert run.environment["CK_LOADGEN_DURATION"] == "2"
    assert run.environment["CK_LOADGEN_COUNT_OVERRIDE"] == "662"
    assert read_submission({"submission": "edge"}).name == "submission.digits.edge"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"submission": "datacenter"},
            "'datacenter': want edge or datacenter-edge .no round after v5.0",
        ),
        ({"count": "100"}, "count: a submission has the counts of the rules"),
        ({"duration": "60"}, "duration: 60: want at least 600, or --rehearse"),
        ({"repetitions": "3"}, "repetitions: a submission sets it"),
        ({"accuracy": "no"}, "accuracy: a submission sets it"),
        ({"scenario": "Server"}, "scenario: a submission of type edge has no Server"),
        ({"infer": "Server"}, "infer: 'Server': want one of MultiStream, Offline"),
        ({"infer": "Offline", "scenario": "SingleStream,Offline"}, "infer: Offline is in"),
        ({"infer": "Offline", "scenario": "MultiStream"}, "infer: want SingleStream"),
        ({"batch": "1,2"}, "want one model, one batch and one rate"),
        ({"precision": "fp32,int8"}, "want one model, one batch and one rate"),
        ({"model": "resnet50+random"}, "random weights have no accuracy"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_submission({"submission": "edge", **options})


def test_it_says_how_long_it_takes_runs_and_is_resumed(fake_ck: FakeCk) -> None:
    fake_ck.behave(valid=True)
    commands = fake_ck(*EDGE, "--dry_run")[0].splitlines()
    assert len([line for line in commands if line.startswith("ck ")]) == 12
    out, _ = fake_ck(*EDGE)
    assert "3 configurations, 12 runs: 0 done, 12 to do, about 1 h 34 min (an estimate)" in out
    assert out.count("note: the closed division will not take this: the images are 500 of") == 1
    assert (
        "[4/12] digits onnx, SingleStream, batch 1, repetition 1, fp32: 1,234 samples/s, VALID"
        in out
    )
    assert "[6/12] digits onnx, SingleStream, batch 1, TEST04, fp32: 1,234 samples/s, L" in out
    assert "12 of 12 runs are recorded in experiment s" in out
    assert "ck submit loadgen" in out
    out, _ = fake_ck(*EDGE)
    assert "12 done, 0 to do" in out
    assert len(fake_ck.list_calls()) == 12


def test_servers_rate_is_searched_for_once(fake_ck: FakeCk) -> None:
    fake_ck.behave(valid=True, most_qps=400)
    out, _ = fake_ck(*SERVER)
    assert "note: Server: the largest rate that is VALID is searched for first" in out
    assert "4 of 4 runs are recorded" in out
    probes = [run for run in fake_ck.list_calls() if run.startswith("rate-")]
    assert fake_ck.list_calls() == probes + fake_ck.list_calls()[-4:]
    recorded = read_recorded_runs([fake_ck.repository], ["s"])
    assert len(recorded) == 4  # none of them is a probe
    again, _ = fake_ck(*SERVER)
    assert "4 done, 0 to do" in again
    assert len(fake_ck.list_calls()) == len(probes) + 4
    rate = float(re.search(r"Server, batch 32, (\S+) queries/s, TEST04", out)[1])
    assert 400 / 1.02 <= rate <= 400


def test_a_given_rate_takes_the_place_of_another(fake_ck: FakeCk) -> None:
    fake_ck.behave(valid=True)
    fake_ck(*SERVER, "--qps=200")
    assert len(fake_ck.list_calls()) == 4
    out, _ = fake_ck(*SERVER, "--qps=100", "--dry_run")
    assert "1 done, 3 to do" in out
    rates = [word for word in shlex.split(out) if "CK_LOADGEN_TARGET_QPS" in word]
    assert rates == 3 * ["--env.CK_LOADGEN_TARGET_QPS=100"]


def test_without_a_valid_rate_nothing_else_is_run(fake_ck: FakeCk) -> None:
    fake_ck.behave(valid=True, most_qps=1)
    _, err = fake_ck(*SERVER, code=2)
    assert "Server: no rate was found (the lowest load is not VALID): give one, --qps=" in err
    assert all(run.startswith("rate-") for run in fake_ck.list_calls())


def test_a_damaged_rate_is_named(fake_ck: FakeCk) -> None:
    fake_ck.behave(valid=True)
    options = (*SERVER, "--rehearse")
    fake_ck(*options)
    path = fake_ck.experiments / "s" / "server-rate.json"
    path.write_text("{")
    _, err = fake_ck(*options, code=2)
    assert f"{path}: " in err
    assert "Remove it" in err


def test_a_busy_machine_is_no_reason_for_a_rehearsal_of_server_to_fail(fake_ck: FakeCk) -> None:
    fake_ck.behave(valid=True)
    options = (*SERVER, "--rehearse")
    fake_ck(*options)
    assert fake_ck.list_calls()[0].startswith("rehearsal-rate-")
    out, _ = fake_ck(*options, "--qps=40", "--dry_run")
    words = [
        word for line in out.splitlines() if line.startswith("ck ") for word in shlex.split(line)
    ]
    assert words.count("--env.CK_LOADGEN_TARGET_LATENCY=1000") == 3
    (record, *_) = [
        json.loads(path.read_text())["characteristics_list"][0]["run"]
        for path in (fake_ck.experiments / "s").glob("ckp-*.0001.json")
        if '"scenario": "Server"' in path.read_text() and "TEST01" in path.read_text()
    ]
    assert record["settings"]["loadgen"]["server_target_qps"] == pytest.approx(30)


def test_an_invalid_run_is_named_and_repeated_when_asked(fake_ck: FakeCk) -> None:
    fake_ck.behave(valid=True, **{"Offline.TEST01": "invalid"})
    _, err = fake_ck(*OFFLINE, code=1)
    assert "digits onnx, Offline, batch 32, TEST01:\n  INVALID\n  early stopping" in err
    assert "--retry_failed repeats these runs: 1" in err
    _, err = fake_ck(*OFFLINE, code=1)
    assert len(fake_ck.list_calls()) == 4
    fake_ck(*OFFLINE, "--retry_failed", code=1)
    fake_ck.behave(valid=True)
    out, _ = fake_ck(*OFFLINE, "--retry_failed")
    assert "[1/1] digits onnx, Offline, batch 32, TEST01, repetition 3, fp32:" in out
    assert len(fake_ck.list_calls()) == 6
    out, _ = fake_ck(*OFFLINE)
    assert "4 done, 0 to do" in out
    repeated = Counter(run.rpartition(".")[0] for run in fake_ck.list_calls())
    assert sorted(repeated.values()) == 3 * [1] + [3]


def test_a_test_that_is_not_passed_is_repeated_with_its_performance_run(fake_ck: FakeCk) -> None:
    fake_ck.behave(valid=True, **{"Offline.PerformanceOnly": "slow"})
    _, err = fake_ck(*OFFLINE, code=1)
    assert re.search(r"Offline, batch 32, TEST04:\n  TEST04: .* performance run's 50", err)
    assert "TEST01 compares with it, and is not passed\n  TEST04 compares with it" in err
    fake_ck.behave(valid=True)
    out, _ = fake_ck(*OFFLINE, "--retry_failed")
    assert "1 done, 3 to do" in out
    assert "go on with `ck submit loadgen" in out


def test_a_rehearsal_ends_with_a_tree_that_no_round_takes(fake_ck: FakeCk) -> None:
    fake_ck.behave(valid=True, **{"SingleStream.TEST04": "slow"})
    out, err = fake_ck(*EDGE, "--rehearse", "--infer=Offline")
    assert "TEST04 compares with it, and is not passed" in err  # said, and no failure
    tree = fake_ck.folder / "s" / "open" / "REHEARSAL"
    system = json.loads((tree / "systems" / "REHEARSAL.json").read_text())
    assert (system["system_type"], system["cooling"]) == ("edge", "REHEARSAL")
    assert "rehearsal" in system["sw_notes"]
    for scenario in ("SingleStream", "MultiStream", "Offline"):
        (folder,) = tree.glob(f"results/REHEARSAL/*/{scenario}")
        text = (folder / "README.md").read_text()
        assert "rehearsal" in text
        assert ("Inferred from the run in SingleStream" in text) == (scenario == "Offline")
        assert (folder / "TEST01" / "verify_accuracy.txt").is_file()
    assert "The tree of a rehearsal" in out


def test_no_rehearsal_is_submitted_to_closed(fake_ck: FakeCk) -> None:
    fake_ck.behave(valid=True)
    fake_ck(*OFFLINE, "--rehearse")
    system = json.loads((fake_ck.folder / "s/open/REHEARSAL/systems/REHEARSAL.json").read_text())
    del system["division"], system["submitter"]
    (fake_ck.folder / "system.yaml").write_text(json.dumps(system))
    words = ("--division=closed", "--submitter=Me", "--system=system.yaml", "s")
    _, err = fake_ck(*words, verb="submit", code=2)
    assert "closed takes none of this" in err
    assert "a rehearsal: runs of" in err


def test_a_rehearsal_replaces_nothing_but_a_tree(fake_ck: FakeCk) -> None:
    fake_ck.behave(valid=True)
    (fake_ck.folder / "s").mkdir()
    (fake_ck.folder / "s" / "thesis").touch()
    _, err = fake_ck(*OFFLINE, "--rehearse", code=2)
    assert "exists already" in err
    assert not fake_ck.list_calls()


def test_a_file_does_the_same(fake_ck: FakeCk) -> None:
    (fake_ck.folder / "edge.yaml").write_text("submission: edge\nrehearse: yes\n")
    out, _ = fake_ck("--file=edge.yaml", "--dry_run")
    assert "experiment rehearsal.digits.edge" in out


def test_another_kind_needs_another_name(fake_ck: FakeCk) -> None:
    fake_ck.behave(valid=True)
    fake_ck(*EDGE, "--rehearse", "--infer=MultiStream,Offline")
    _, err = fake_ck(*EDGE, code=2)
    assert "experiment s is another sweep" in err
    assert "rehearsal: true -> false" in err
    definition = json.loads((fake_ck.experiments / "s" / "sweep.json").read_text())
    assert (definition["kind"], definition["rehearsal"]) == ("edge", True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rehearse",), "rehearse: means something with --submission= only"),
        (("--infer=Offline",), "infer: means something with --submission= only"),
        (("--submission=edge", "--find=max"), "find: leave it out, or submission"),
        (("--submission=edge", "--cluster=slurm"), "cluster: a submission is of one system"),
        (("--env.CK_LOADGEN_COMPLIANCE=TEST01",), "that is for --submission="),
    ],
)
def test_options_that_do_not_go_together(
    fake_ck: FakeCk, options: tuple[str, ...], message: str
) -> None:
    _, err = fake_ck(*options, code=2)
    assert message in err
