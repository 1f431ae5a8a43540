"""The table of logs and their right verdicts."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ck_mlperf.loadgen.job import DETAIL_LOG
from ck_mlperf.results.advice import advise_loadgen
from ck_mlperf.results.logs import LoadgenResult, read_result
from ck_mlperf.results.report import format_report

from ..builders.records import make_record
from ..builders.results import GOOD, failed, judge_by
from .verdict_cases import CASES, Case

ARCHIVE = Path(__file__).resolve().parents[1] / "data" / "verdicts" / "logs.tar.xz"
PREFIX = ":::MLLOG "
# Which of ours has what the checker complains of.
OURS = {
    "seeds_check": {"seeds_of_round"},
    "latency_check": {"loadgen_valid", "latency_bound_ms"},
    "min_duration_check": {"min_duration_s"},
    "performance_sample_count_check": {"loaded_images"},
    "min_query_count_check": {"samples"},
}


def alter(content: bytes, altered: Mapping[str, Any]) -> bytes:
    """A copy of a log with other values."""
    lines, left = [], set(altered)
    for line in content.decode().splitlines():
        event = json.loads(line.removeprefix(PREFIX))
        if event["key"] in altered:
            left.discard(event["key"])
            event["value"] = altered[event["key"]]
            line = PREFIX + json.dumps(event)
        lines.append(line + "\n")
    assert not left
    return "".join(lines).encode()


@pytest.fixture(scope="module")
def logs() -> dict[str, bytes]:
    with tarfile.open(ARCHIVE) as archive:
        contents = {member.name: archive.extractfile(member) for member in archive}
        return {Path(name).stem: file.read() for name, file in contents.items() if file}


def read(logs: Mapping[str, bytes], case: Case, folder: Path) -> LoadgenResult:
    content = logs[case.log]
    (folder / DETAIL_LOG).write_bytes(alter(content, case.altered) if case.altered else content)
    return read_result(folder)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_right_verdict(case, logs, tmp_path):
    result = read(logs, case, tmp_path)
    rules = case.rules or ("datacenter-edge" if result.scenario == "Server" else "edge")
    verdict = judge_by(rules, result, GOOD)
    assert set(failed(verdict)) == set(case.broken)
    assert verdict.valid == (case.is_valid and not verdict.stand_in)
    assert all(check.advice and check.source for check in failed(verdict).values())
    if result.performance is None:
        assert not case.advice
    else:
        advice = advise_loadgen(result)
        assert len(advice) == bool(case.advice)
        assert case.advice in "".join(advice)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_passes_that_the_checker_refuses(case, logs, tmp_path):
    result = read(logs, case, tmp_path)
    if result.mode == "FindPeakPerformance" or result.performance is None:
        return
    rules = "datacenter-edge" if result.scenario == "Server" else "edge"
    broken = failed(judge_by(rules, result, GOOD)).keys()
    for name in case.checker:
        assert OURS[name] & broken


def test_the_reports_line(logs, tmp_path):
    """What the report says of a log is LoadGen's verdict, or that it is a compliance run."""
    record = make_record()
    for case in CASES:
        result = read(logs, case, tmp_path)
        performance = result.performance
        valid = performance.is_valid if performance else None
        loadgen = replace(
            record.verdicts.loadgen,
            valid=None if result.compliance and valid else valid,
            compliance=result.compliance,
        )
        verdicts = replace(record.verdicts, loadgen=loadgen)
        printed = format_report(replace(record, verdicts=verdicts), silent=True)
        said = [line for line in printed.splitlines() if line.startswith("LoadGen")]
        assert said == [f"LoadGen {loadgen.version}: {case.loadgen}"] * bool(case.loadgen), case


def test_the_table_has_what_it_should():
    assert len({case.name for case in CASES}) == len(CASES) >= 30
    assert all(("altered" in case.name) == bool(case.altered) for case in CASES)
    assert {case.log for case in CASES} >= {"test01", "test04", "server-overloaded", "peak"}
