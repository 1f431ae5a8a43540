"""`ck explore loadgen --find=max` on simulated systems that record into a real entry."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.explore.runs import Outcome, ScheduledRun, Watcher, make_failure
from ck_mlperf.explore.search.algorithm import list_rates
from ck_mlperf.explore.search.definition import read_rules, read_search
from ck_mlperf.explore.session import explore as run_explore

from ...builders.records import make_json

NAME = "probes"


class System:
    """An executor: `latency_ms` says how long a query takes, `fails` whether a run fails."""

    def __init__(self, entry: Any, latency_ms: Callable[[Any], float]) -> None:
        self.entry = entry
        self.latency_ms = latency_ms
        self.fails: Callable[[Any], bool] = lambda c: False
        self.others_core_s = 0.0
        self.needs: Callable[[Any], int] = lambda c: 0
        self.runs: list[ScheduledRun] = []
        self.left = 1000

    def run(self, runs: Sequence[ScheduledRun], watcher: Watcher) -> None:
        for run in runs:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            self.runs.append(run)
            watcher.started(run)
            watcher.ended(self.make_outcome(run))

    def make_outcome(self, run: ScheduledRun) -> Outcome:
        if self.fails(run.configuration):
            return make_failure(run, datetime.now(timezone.utc), 1, 2, "no memory")
        p99_ms = self.latency_ms(run.configuration)
        bound_ms = 50 if run.configuration.scenario == "MultiStream" else 15
        (judged,) = (v for v in make_json()["verdicts"]["rules"] if v["id"] == "v0.5")
        met = {"p99_ms": p99_ms <= bound_ms, "loadgen_errors": True, "duration_s": False}
        judged["checks"] = [
            judged["checks"][0] | {"metric": metric, "ok": ok} for metric, ok in met.items()
        ]
        judged["checks"][0] |= {"name": "99th percentile", "measured": p99_ms, "unit": "ms"}
        judged["checks"][0]["required"] = bound_ms
        queries = int(run.environment.get("CK_LOADGEN_COUNT_OVERRIDE", 0)) or 1000
        is_late = run.configuration.scenario == "Server" and p99_ms > 15
        needs = self.needs(run.configuration)
        loadgen = {"valid": not is_late and queries >= needs, "needed_queries": None}
        if is_late:
            loadgen["reasons"] = [
                f"99th percentile {p99_ms} ms is over 15 ms",
                "early stopping: no",
            ]
            loadgen["not_met"] = ["latency", "early stopping"]
        elif queries < needs:
            loadgen |= {"not_met": ["early stopping"], "needed_queries": needs}
        cpu = {"wall_s": 2.0, "cores": 2, "own_core_s": 3.0, "steal_core_s": 0.0}
        record = make_json(
            settings={
                "ours": {"CK_EXPLORE_RUN": {"value": run.id, "origin": "env"}},
                "loadgen": {"server_target_qps": run.configuration.target_qps or 300.0},
            },
            timing={"wall_s": 1.0},
            conditions={"cpu": cpu | {"busy_core_s": 3.0 + self.others_core_s}, "gpus": []},
            latencies_ns={"p99": int(p99_ms * 1e6)},
            throughput={"samples_per_second": 100.0 + len(self.runs)},
            counts={"queries": queries},
            verdicts={"loadgen": loadgen, "rules": [judged]},
        )
        path = self.entry.folder / f"ckp-{len(list(self.entry.folder.iterdir())):016x}.0001.json"
        path.write_text(json.dumps({"characteristics_list": [{"run": record}]}))
        return Outcome(run, 1, record=self.entry.read_record(run.id))


class Explore:
    """`ck explore loadgen` on a system."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.latency_ms: Callable[[Any], float] = lambda c: 1.0
        self.fails: Callable[[Any], bool] = lambda c: False
        self.left = 1000
        self.others_core_s = 0.0
        self.needs: Callable[[Any], int] = lambda c: 0
        self.runs: list[ScheduledRun] = []
        (repository / "experiment" / NAME / ".cm").mkdir(parents=True)
        (repository / "experiment" / NAME / ".cm" / "meta.json").write_text("{}")

    @contextlib.contextmanager
    def open(self, entry: Any, lock: int) -> Iterator[System]:
        system = System(entry, self.latency_ms)
        system.fails, system.left, system.runs = self.fails, self.left, self.runs
        system.others_core_s, system.needs = self.others_core_s, self.needs
        yield system

    def __call__(self, *words: str, dry_run: bool = False) -> int:
        options = dict(word.removeprefix("--").split("=") for word in words)
        options |= {"find": "max", "name": NAME}
        return run_explore(options, self.repository, self.open, dry_run)


@pytest.fixture
def explore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explore:
    monkeypatch.setenv("COLUMNS", "200")
    return Explore(tmp_path)


def test_server(explore, capsys):
    explore.latency_ms = lambda c: 5 if (c.target_qps or 0) < 1000 else 40
    assert explore("--scenario=Server") == 0
    said = capsys.readouterr().out
    assert "Server, judged by LoadGen's verdict" in said
    assert "start: 300 queries/s" in said
    below = max(rate for rate in list_rates(0.02) if rate < 1000)
    above = min(rate for rate in list_rates(0.02) if rate >= 1000)
    assert f"the largest load that is VALID: {below:g} queries/s" in said
    assert f"VALID in 3 of 3 runs; the next load, {above:g}, was VALID in 0 of 2" in said
    assert "with 95% confidence, a run at this load is VALID with a chance of at least 37%" in said
    first = explore.runs[1]
    assert first.environment["CK_LOADGEN_COUNT_OVERRIDE"] == "662"
    assert first.environment["CK_LOADGEN_DURATION"] == "10"


def test_why_a_probe_was_invalid(explore, capsys):
    explore.latency_ms = lambda c: 5 if (c.target_qps or 0) < 1000 else 40
    assert explore("--scenario=Server", "--start=1500") == 0
    said = capsys.readouterr().out
    assert "run 1: INVALID (99th percentile 40 ms is over 15 ms), " in said
    assert "early stopping: no" not in said
    assert explore("--scenario=Server", "--start=1500", "--rules=v0.5") == 0
    assert "INVALID (99th percentile 40 ms, over 15), " in capsys.readouterr().out


def test_probes_of_an_older_version(explore):
    with pytest.raises(UserError, match="an older version recorded the probes"):
        explore("--scenario=Server", "--start=500", "--rules=datacenter-edge")


def test_a_probe_of_too_few_queries_is_lengthened(explore, capsys):
    """The load is not lowered for that: near the edge more queries are needed to tell."""
    explore.latency_ms = lambda c: 5 if (c.target_qps or 0) < 1000 else 40
    explore.needs = lambda c: 2000 if (c.target_qps or 0) > 900 else 0
    assert explore("--scenario=Server", "--start=950") == 0
    said = capsys.readouterr().out
    below = max(rate for rate in list_rates(0.02) if rate < 1000)
    assert f"the largest load that is VALID: {below:g} queries/s" in said
    assert "662 queries are too few for the share that was late; again with 2500" in said
    assert "repeated with more queries" in said
    counts = {run.environment["CK_LOADGEN_COUNT_OVERRIDE"] for run in explore.runs}
    assert counts == {"662", "2500"}
    # What is there is not run again, the longer ones included.
    before = len(explore.runs)
    assert explore("--scenario=Server", "--start=950") == 0
    assert len(explore.runs) == before


def test_a_probe_is_not_lengthened_without_end(explore, capsys):
    explore.needs = lambda c: 10**6 if (c.target_qps or 0) > 900 else 0
    assert explore("--scenario=Server", "--start=800") == 0
    said = capsys.readouterr().out
    assert "INVALID (662 queries are too few for the share that was late)" in said
    assert "again with" not in said


def test_what_is_there_is_not_run_again(explore, capsys):
    explore.latency_ms = lambda c: 5 if (c.target_qps or 0) < 1000 else 40
    for _ in range(3):  # interrupted twice
        explore.left = 5
        code = explore("--scenario=Server")
        interrupted = "The same command continues" in capsys.readouterr().err
        assert interrupted == (code == 130)
    explore.left = 1000
    assert explore("--scenario=Server") == 0
    whole = capsys.readouterr().out
    names = [run.id for run in explore.runs]
    assert len(names) == len({*names})
    assert f"{len(names) - 1} runs and one for the start" in whole
    # Nor under other rules, or with more repetitions.
    assert explore("--scenario=Server", "--rules=v0.5", "--repetitions=5") == 0
    said = capsys.readouterr().out
    assert "judged by the latency bound of MLPerf Inference v0.5 (2019), p99 at most 15 ms" in said
    assert len(explore.runs) == len(names) + 2


def test_multistream_by_a_stand_in(explore, capsys):
    explore.latency_ms = lambda c: 1.5 * c.samples_per_query
    assert explore("--scenario=MultiStream") == 0
    said = capsys.readouterr().out
    assert "p99 at most 50 ms (a stand-in for it: today's LoadGen" in said
    assert "the largest load that is VALID: 33 samples per query" in said
    assert {
        run.configuration.batch - run.configuration.samples_per_query for run in explore.runs
    } == {0}
    assert explore.runs[0].configuration.samples_per_query == 8


def test_the_largest_batch(explore, capsys):
    explore.fails = lambda c: c.batch > 96
    assert explore("--scenario=Offline", "--limit=1024") == 0
    said = capsys.readouterr().out
    assert explore.runs[0].configuration.batch == 1024
    assert "1024 samples at once (batch), run 1: FAILED, which counts as INVALID" in said
    assert "no memory" in said
    assert "the largest load that is VALID: 96 samples at once (batch)" in said
    assert "batch 96: median of 3 runs" in said
    assert "with 75% confidence" in said


def test_the_limit_is_valid(explore, capsys):
    assert explore("--scenario=Offline", "--limit=64") == 0
    assert "it is the highest load that may be tried" in capsys.readouterr().out
    assert [run.configuration.batch for run in explore.runs] == [64, 64, 64]


def test_single_stream_is_measured(explore, capsys):
    assert explore("--scenario=SingleStream") == 0
    said = capsys.readouterr().out
    assert "no load to search for" in said
    assert "median of 6 runs 103.5 samples/s; the true median" in said
    assert "between 101 and 106 with 97% confidence" in said
    assert len(explore.runs) == 6
    assert "doubtful" not in said


def test_what_the_machine_disturbed_is_said(explore, capsys):
    explore.others_core_s = 1.0
    assert explore("--scenario=Offline", "--limit=64") == 0
    said = capsys.readouterr().out
    assert "doubtful: 3 of 3 runs were disturbed (other_processes)" in said


def test_nothing_is_valid(explore, capsys):
    explore.latency_ms = lambda c: 99
    assert explore("--scenario=Server") == 1
    said = capsys.readouterr().out
    assert "no load was VALID 3 times in a row, down to" in said
    assert (
        min(run.configuration.target_qps for run in explore.runs if run.configuration.target_qps)
        > 300 / 17
    )


def test_used_up(explore, capsys):
    explore.latency_ms = lambda c: 5 if (c.target_qps or 0) < 1000 else 40
    assert explore("--scenario=Server", "--start=500", "--max_runs=3") == 1
    said = capsys.readouterr().out
    assert "no answer: --max_runs=3 is used up" in said
    assert "The same command with more continues" in said
    assert explore("--scenario=Server", "--start=500") == 0


def test_a_first_probe_that_fails_ends_the_search(explore):
    explore.fails = lambda c: True
    with pytest.raises(UserError, match="no memory"):
        explore("--scenario=Server", "--start=500")
    assert len(explore.runs) == 1


def test_a_failed_probe_above_counts_as_invalid(explore, capsys):
    explore.fails = lambda c: (c.target_qps or 0) > 800
    assert explore("--scenario=Server", "--start=500") == 0
    assert "FAILED, which counts as INVALID" in capsys.readouterr().out


def test_a_changed_setting_is_refused(explore):
    assert explore("--scenario=Offline", "--limit=2", "--duration=1") == 0
    with pytest.raises(UserError, match="duration: 1 -> 2"):
        explore("--scenario=Offline", "--limit=2", "--duration=2")


def test_dry_run(explore, capsys):
    assert explore("--scenario=MultiStream", dry_run=True) == 0
    said = capsys.readouterr().out
    assert said.startswith("ck benchmark program:image-classification-tensorrt-loadgen-py")
    assert "--env.CK_LOADGEN_MULTISTREAMNESS=8" in said
    assert not explore.runs


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"find": "min"}, "find: 'min': want max"),
        ({"scenario": "Server,Offline"}, "one scenario, one network and one batch"),
        ({"scenario": "Server", "model": "a,b"}, "one scenario, one network"),
        ({"scenario": "Server", "batch": "1,2"}, "one scenario, one network and one batch"),
        ({"scenario": "Server", "qps": "5"}, "leave out what is searched: queries/s"),
        ({"scenario": "Offline", "batch": "5"}, "leave out what is searched: samples at once"),
        ({"scenario": "MultiStream", "samples_per_query": "5"}, "leave out what is searched"),
        ({"scenario": "Server", "repetitions": "1"}, "want at least 2"),
        ({"scenario": "Server", "resolution": "0"}, "resolution: '0': want a number, 0.001 to 0.5"),
        ({"scenario": "Server", "resolution": "2%"}, "resolution: '2%': want a number"),
        ({"scenario": "Server", "start": "nan"}, "start: 'nan': want a number"),
        ({"scenario": "Server", "limit": "1e9"}, "limit: '1e9': want a whole number"),
        ({"scenario": "Server", "max_runs": "0"}, "max_runs: '0': want a whole number"),
        ({"scenario": "Server", "rules": "mine"}, "want loadgen or one of edge, datacenter-edge,"),
        ({"scenario": "MultiStream", "rules": "loadgen"}, "no latency bound in MultiStream"),
        ({"scenario": "MultiStream", "rules": "edge"}, "edge sets no bound that a load"),
        ({"scenario": "Server", "rules": "edge"}, "edge sets no bound that a load"),
        ({"scenario": "Offline", "rules": "v0.5"}, "v0.5 sets no bound that a load"),
        ({"scenario": "Server", "fnid": "max"}, "fnid: no such option"),
    ],
)
def test_what_is_refused(options, said):
    with pytest.raises(UserError, match=said):
        read_search({"find": "max", **options})


def test_rules_that_a_load_can_break():
    assert read_rules("datacenter", "Server").metrics == (
        "loadgen_valid", "loadgen_errors", "p99_ms",
    )  # fmt: skip
    assert read_rules("v0.5", "MultiStream").metrics == ("loadgen_errors", "p99_ms")


def test_options_from_a_file(tmp_path):
    path = tmp_path / "search.yaml"
    path.write_text("scenario: SingleStream\nrepetitions: 4\nname: mine\n")
    search = read_search({"find": "max", "file": str(path)})
    assert (search.sweep.repetitions, search.sweep.name) == (4, "mine")
    search = read_search({"find": "max", "scenario": "Server"})
    assert search.sweep.name == "find.digits.server"
