"""Logs of compliance tests with what the official scripts said of them.

test/data/compliance has LoadGen's logs of real short runs of each scenario, and official.json. The
cases are these logs, and copies that are altered as the case's name says.

    python test/submission/compliance_cases.py PATH COMMIT

makes official.json again, with the scripts of a checkout of mlcommons/inference.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ck_mlperf.submission.compliance import (
    ACCURACY_FILE,
    PASS,
    PERFORMANCE_FILE,
    TestLogs,
    Verification,
    run_official,
)

DATA = Path(__file__).resolve().parents[1] / "data" / "compliance"
OFFICIAL = DATA / "official.json"
SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
TESTS = ("TEST01", "TEST04")
SCORES = {
    "SingleStream": ("early_stopping_latency_ss", r"(Early stopping 90.0th percentile.*: )\S+"),
    "MultiStream": ("early_stopping_latency_ms", r"(Early stopping 99.0th percentile.*: )\S+"),
    "Server": ("result_completed_samples_per_sec", r"(Completed samples per second +: )\S+"),
    "Offline": ("result_samples_per_second", r"(Samples per second: )\S+"),
}

Alteration = Callable[[TestLogs], TestLogs]


class Case(NamedTuple):
    test: str
    reference: TestLogs
    compliance: TestLogs


def _keep(logs: TestLogs) -> TestLogs:
    return logs


def set_score(scenario: str, score: float) -> Alteration:
    key, line = SCORES[scenario]

    def alter(logs: TestLogs) -> TestLogs:
        value = str(round(score)) if scenario in ("SingleStream", "MultiStream") else f"{score:.2f}"
        detail = re.sub(
            rf'("key": "{key}", "value": )[^,]+', rf"\g<1>{value}", logs.detail.decode()
        )
        summary = re.sub(line, rf"\g<1>{value}", logs.summary.decode())
        return replace(logs, detail=detail.encode(), summary=summary.encode())

    return alter


def change(old: str, new: str, *, count: int = 0) -> Alteration:
    """Replace a pattern in all three logs."""

    def alter(logs: TestLogs) -> TestLogs:
        texts = (logs.summary, logs.detail, logs.accuracy)
        return TestLogs(*(re.sub(old, new, t.decode(), count=count).encode() for t in texts))

    return alter


# What is altered, by the name of the case: in the reference, in the compliance run.
ALTERATIONS: dict[str, tuple[Alteration, Alteration]] = {
    "as measured": (_keep, _keep),
    "reference is INVALID": (change(r'\bVALID\b', "INVALID"), _keep),
    "compliance run is INVALID": (_keep, change(r'\bVALID\b', "INVALID")),
    "no verdict": (_keep, change('"result_validity"', '"result_other"')),
    "an error in the reference": (change('("num_errors", "value": )0', r"\g<1>1"), _keep),
    "an error in the compliance run": (_keep, change('("num_errors", "value": )0', r"\g<1>1")),
    "an error in its summary": (_keep, change("No errors encountered", "2 ERRORs encountered")),
    "an accuracy run in place of it": (
        _keep,
        lambda logs: replace(logs, summary=b"\nNo warnings encountered during test.\n", detail=b""),
    ),
    "no early-stopping estimate": (
        _keep,
        change('(Early stopping .*estimate: |"early_stopping_latency_.s", "value": ).*', ""),
    ),
    "another latency bound": (
        _keep,
        change(r'(target_latency_ns", "value": |target_latency \(ns\): )\d+', r"\g<1>7"),
    ),
    "detail log cut off": (_keep, lambda logs: replace(logs, detail=logs.detail[:-30])),
    "detail log of another program": (
        _keep,
        lambda logs: replace(logs, detail=b"hello\n" + logs.detail),
    ),
    "one answer differs": (_keep, change('(?<="data" : ")0[0-9A-F]', "0B", count=1)),
    "answers differ above the first byte": (_keep, change('(?<="data" : "..)00', "01", count=1)),
    "an empty answer": (_keep, change('"data" : "[^"]+"', '"data" : ""', count=1)),
    "an answer of three bytes": (_keep, change('"data" : "(.{6})..', r'"data" : "\1', count=1)),
    "one image unknown": (_keep, change('"qsl_idx" : [0-9]+', '"qsl_idx" : 9000', count=1)),
    "all images unknown": (_keep, change('"qsl_idx" : ', '"qsl_idx" : 9')),
    "answered two ways": (
        _keep,
        change(r'("qsl_idx" : )\d+(, "data" : ")0.', r"\g<1>1\g<2>09", count=1),
    ),
    "no answers": (_keep, lambda logs: replace(logs, accuracy=b"[\n]\n")),
    "accuracy log cut off": (_keep, lambda logs: replace(logs, accuracy=logs.accuracy[:-9])),
    "an answer without an image": (_keep, change('"qsl_idx" :', '"other" :', count=1)),
    "accuracy run answered nothing": (lambda logs: replace(logs, accuracy=b"[\n]\n"), _keep),
}  # fmt: skip
# Shares of the reference's score, and the score itself where not the measured one.
_SHARES = (0.7, 0.79, 0.81, 0.89, 0.91, 1.0, 1.09, 1.12, 1.19, 1.22, 1.3)
_SHORT = {"SingleStream": 150_000, "MultiStream": 1_500_000}


@cache
def read_logs(scenario: str, run: str) -> TestLogs:
    """Logs of a real run: TEST01, TEST04, or `reference`."""
    with tarfile.open(DATA / "logs.tar.xz") as archive:

        def read(folder: str, name: str) -> bytes:
            file = archive.extractfile(f"{scenario}/{folder}/mlperf_log_{name}")
            assert file is not None
            return file.read()

        folder, accuracy = ("perf", "acc") if run == "reference" else (run, run)
        return TestLogs(
            read(folder, "summary.txt"),
            read(folder, "detail.txt"),
            read(accuracy, "accuracy.json"),
        )


def list_cases() -> Iterator[tuple[str, Case]]:
    """(name, case) of each."""
    for scenario in SCENARIOS:
        reference = read_logs(scenario, "reference")
        for test in TESTS:
            compliance = set_score(scenario, 1e6)(read_logs(scenario, test))
            first = set_score(scenario, 1e6)(reference)
            for name, (alter_first, alter_second) in ALTERATIONS.items():
                altered = alter_first(first), alter_second(compliance)
                if name == "as measured" or altered != (first, compliance):
                    yield f"{test} {scenario}: {name}", Case(test, *altered)
            yield (
                f"{test} {scenario}: really as measured",
                Case(test, reference, read_logs(scenario, test)),
            )
            for base in (1e6, *((_SHORT[scenario],) if scenario in _SHORT else ())):
                for share in _SHARES:
                    scores = set_score(scenario, base), set_score(scenario, base * share)
                    yield (
                        f"{test} {scenario}: {base:g} to {share}",
                        Case(test, scores[0](reference), scores[1](compliance)),
                    )
            other = SCENARIOS[SCENARIOS.index(scenario) - 1]
            yield (
                f"{test} {scenario}: reference is {other}",
                Case(test, read_logs(other, "reference"), compliance),
            )
            yield f"{test} {scenario}: the performance run again", Case(test, reference, reference)


def describe(verification: Verification) -> dict[str, bool | None]:
    """The verdict of each part, by the line by which MLPerf's submission checker goes."""
    return {
        part: PASS in verification.files[name] if name in verification.files else None
        for part, name in (("accuracy", ACCURACY_FILE), ("performance", PERFORMANCE_FILE))
    }


def main() -> None:
    inference = Path(sys.argv[1])
    outcomes = {name: describe(run_official(inference, *case)) for name, case in list_cases()}
    lines = (f"{json.dumps(name)}: {json.dumps(outcome)}" for name, outcome in outcomes.items())
    text = ",\n".join(lines)
    OFFICIAL.write_text(f'{{"commit": "{sys.argv[2]}", "outcomes": {{\n{text}\n}}}}\n')


if __name__ == "__main__":
    main()
