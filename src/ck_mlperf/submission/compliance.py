"""MLPerf's verification of TEST01 and TEST04: what the official scripts say of the same logs.

The rules are those of compliance/TEST01 and compliance/TEST04 of mlcommons/inference, commit
b66003e10e2db4b8c36a448b0545ec90fcc6e9e9. The scripts read what they need and no more; so does this,
and where they end with a traceback, the test has failed here too. `run_official` runs the scripts
themselves.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import parse_json
from ck_mlperf.loadgen.job import ACCURACY_LOG, DETAIL_LOG, SUMMARY_LOG
from ck_mlperf.submission.detail_log import DetailLog
from ck_mlperf.submission.requirements import PERFORMANCE_FOLDER, RESULT_KEYS

ACCURACY_FILE, PERFORMANCE_FILE = "verify_accuracy.txt", "verify_performance.txt"
PASS = "TEST PASS"
# The figure that TEST04 compares: its line in the summary. Latencies become rates.
_SCORE_LINES = {
    "Offline": r"Samples per second",
    "SingleStream": r".*Early stopping (90th|90.0th|99.9th) percentile estimate",
    "MultiStream": r".*Early stopping (99th|99.0th) percentile estimate",
    "Server": r"Completed samples per second",
}
_STREAMS = ("SingleStream", "MultiStream")
# Up to these scores a difference of 20% passes: meant for short latencies. TEST01 has latencies in
# ns, TEST04 rates in 1/s, and both compare with the same numbers.
_RELAXED_UP_TO = {"SingleStream": 200_000, "MultiStream": 1_600_000}
_THRESHOLD, _RELAXED_THRESHOLD = 0.10, 0.20


@dataclass(frozen=True)
class TestLogs:
    """LoadGen's logs that a verification reads."""

    __test__: ClassVar[bool] = False  # it is none of pytest's

    summary: bytes
    detail: bytes
    accuracy: bytes
    """Of a compliance run, its own; of the reference, the accuracy run's."""


@dataclass(frozen=True)
class Verification:
    """The outcome of a compliance test."""

    passed: bool
    files: dict[str, str]
    """What a submission has in the test's folder, by path within it."""
    reasons: list[str] = field(default_factory=list)
    """Why it has not passed."""


class _FailedError(Exception):
    """The reason why a part of a test has failed; `args[1:]` are the lines that its file has."""


def verify(test: str, reference: TestLogs, compliance: TestLogs) -> Verification:
    """Verify a run of TEST01 or TEST04.

    reference: logs of the performance run with the same settings, and of the accuracy run.
    compliance: of the compliance run.
    """
    files, reasons = _list_logs(test, compliance), []
    parts = [(PERFORMANCE_FILE, _verify_rates, reference.summary, compliance.summary)]
    if test == "TEST01":
        parts = [
            (ACCURACY_FILE, _verify_answers, reference.accuracy, compliance.accuracy),
            (PERFORMANCE_FILE, _verify_scores, reference.detail, compliance.detail),
        ]
    for name, verify_part, first, second in parts:
        try:
            lines = [*verify_part(first, second), PASS]
        except _FailedError as failed:
            reason, *lines = failed.args
            lines.append(f"TEST FAIL: {reason}")
            reasons.append(f"{test}: {reason}")
        files[name] = "\n".join(lines) + "\n"
    return Verification(not reasons, files, reasons)


def run_official(
    inference: Path, test: str, reference: TestLogs, compliance: TestLogs
) -> Verification:
    """The same by the official scripts, unmodified. inference: a checkout of mlcommons/inference.

    Raises UserError where it has no such script. The scripts need numpy.
    """
    script = inference / "compliance" / test / "run_verification.py"
    if not script.is_file():
        raise UserError(f"{script}: no such file: want a checkout of mlcommons/inference")
    with tempfile.TemporaryDirectory(prefix="ck-mlperf-compliance-") as folder:
        work = Path(folder)
        for name, content in (
            (f"results/accuracy/{ACCURACY_LOG}", reference.accuracy),
            (f"results/{PERFORMANCE_FOLDER}/{DETAIL_LOG}", reference.detail),
            (f"results/{PERFORMANCE_FOLDER}/{SUMMARY_LOG}", reference.summary),
            (f"compliance/{ACCURACY_LOG}", compliance.accuracy),
            (f"compliance/{DETAIL_LOG}", compliance.detail),
            (f"compliance/{SUMMARY_LOG}", compliance.summary),
        ):
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(content)
        command = [sys.executable, str(script.absolute()), "-r", "results", "-c", "compliance"]
        command += ["-o", "output", *(("--dtype", "int32") if test == "TEST01" else ())]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        output = work / "output" / test
        files = {
            str(path.relative_to(output)): path.read_text(errors="replace")
            for path in sorted(output.rglob("*"))
            if path.is_file()
        }
    parts = [name for name in (ACCURACY_FILE, PERFORMANCE_FILE) if name in files]
    reasons = [f"{test}: {name}: {files[name]}" for name in parts if PASS not in files[name]]
    if not parts:
        reasons = [f"{test}: {script} left nothing: {done.stderr}"]
    return Verification(not reasons, files, reasons)


def _list_logs(test: str, logs: TestLogs) -> dict[str, str]:
    files = {
        f"{PERFORMANCE_FOLDER}/{DETAIL_LOG}": logs.detail,
        f"{PERFORMANCE_FOLDER}/{SUMMARY_LOG}": logs.summary,
    }
    if test == "TEST01":
        files[f"accuracy/{ACCURACY_LOG}"] = logs.accuracy
    return {name: content.decode(errors="replace") for name, content in files.items()}


def _verify_answers(reference: bytes, compliance: bytes) -> list[str]:
    """Each answer of the compliance run that can be compared is that of the accuracy run."""
    first = _read_answers(reference, "the accuracy run")
    second = _read_answers(compliance, "the compliance run")
    answers: dict[int, str] = {}
    for index, data in first:
        answers.setdefault(index, data)
    matched = different = missing = 0
    for index, data in second:
        try:
            label = _read_label(data)
            if index in answers:
                matched += 1
                different += _read_label(answers[index]) != label
            else:
                missing += 1
        except (ValueError, TypeError) as error:
            raise _FailedError(f"the answer for image {index} is no int32: {error}") from error
        answers[index] = data  # the next answer for the same image is compared with this one
    lines = [
        "Verifying accuracy.",
        f"answers of the accuracy run: {len(first)}",
        f"answers of the compliance run: {len(second)}",
        f"compared: {matched}, different: {different}, not in the accuracy run: {missing}",
    ]
    if not matched:
        raise _FailedError("no answer of the compliance run is in the accuracy run", *lines)
    if different:
        raise _FailedError(
            f"{different} of {matched} answers differ from the accuracy run's", *lines
        )
    return lines


def _read_answers(log: bytes, whose: str) -> list[tuple[int, str]]:
    """(sample index, answer in hex) of each line of an accuracy log."""
    try:
        return [(sample["qsl_idx"], sample["data"]) for sample in parse_json(log)]
    except (ValueError, TypeError, KeyError) as error:
        raise _FailedError(f"{ACCURACY_LOG} of {whose} cannot be read: {error!r:.100}") from error


def _read_label(data: str) -> int | None:
    """The label that LoadGen logged in hex; None: an empty answer."""
    content = bytes.fromhex(data)
    if len(content) % 4:
        raise ValueError(f"{len(content)} bytes")
    return int.from_bytes(content[:4], "little", signed=True) if content else None


def _verify_scores(reference: bytes, compliance: bytes) -> list[str]:
    """TEST01: the score is that of the performance run, to 10%, by the detail logs."""
    first = _read_score(reference, "the performance run")
    second = _read_score(compliance, "the compliance run")
    lines = ["Verifying performance."]
    if first.scenario != second.scenario:
        raise _FailedError(
            f"{second.scenario}, and the performance run is {first.scenario}", *lines
        )
    if first.bound_ns != second.bound_ns:
        raise _FailedError("Server's target latency is not that of the performance run", *lines)
    lines += [f"Reference score = {first.score}", f"Test score = {second.score}"]
    threshold = _choose_threshold(first.scenario, first.score)
    low, high = first.score * (1 - threshold), first.score * (1 + threshold)
    if not low <= second.score <= high:
        raise _FailedError(
            f"the score is {second.score:g}, which is not within {threshold:.0%} of the "
            f"performance run's {first.score:g}",
            *lines,
        )
    return lines


@dataclass(frozen=True)
class _Score:
    scenario: str
    score: float
    """SingleStream and MultiStream: ns, else samples/s."""
    bound_ns: Any = None


def _read_score(log: bytes, whose: str) -> _Score:
    try:
        read = DetailLog(log)
    except ValueError as error:
        raise _FailedError(f"{DETAIL_LOG} of {whose} cannot be read: {error!r:.100}") from error
    values = read.values
    scenario = values.get("effective_scenario")
    try:
        score = _Score(
            str(scenario),
            float(values[RESULT_KEYS[str(scenario)]]),
            values.get("effective_target_latency_ns") if scenario == "Server" else None,
        )
    except (KeyError, TypeError, ValueError):
        raise _FailedError(f"{DETAIL_LOG} of {whose} has no result of a performance test") from None
    if values.get("result_validity") != "VALID":
        raise _FailedError(f"{whose} is not VALID")
    if values.get("num_errors", len(read.errors)):  # here the official script ends with a NameError
        raise _FailedError(f"LoadGen logged errors in {whose}")
    return score


def _verify_rates(reference: bytes, compliance: bytes) -> list[str]:
    """TEST04: the rate is at most 10% over that of the performance run, by the summaries."""
    first_scenario, first = _read_rate(reference, "the performance run")
    second_scenario, second = _read_rate(compliance, "the compliance run")
    lines = ["Verifying performance."]
    if first_scenario != second_scenario:
        raise _FailedError(
            f"{second_scenario}, and the performance run is {first_scenario}", *lines
        )
    lines += [f"reference score = {first}", f"test score = {second}"]
    threshold = _choose_threshold(first_scenario, first)
    if not second < first * (1 + threshold):
        raise _FailedError(
            f"{second:g} a second with the same image repeated, {threshold:.0%} or more above the "
            f"performance run's {first:g}: answers may be cached",
            *lines,
        )
    return lines


def _read_rate(summary: bytes, whose: str) -> tuple[str, float]:
    """(scenario, samples or queries a second); 0 where the summary has no such figure."""
    scenario, rate = "", 0.0
    try:
        for name, value in _read_summary(summary):
            if name.startswith("Scenario"):
                scenario = value
            elif scenario in _SCORE_LINES and re.match(_SCORE_LINES[scenario], name):
                rate = 1e9 / float(value) if scenario in _STREAMS else float(value)
            elif name.startswith("Result is") and value == "INVALID":
                raise _FailedError(f"{whose} is INVALID")
    except (ValueError, ZeroDivisionError) as error:
        raise _FailedError(f"{SUMMARY_LOG} of {whose} cannot be read: {error!r:.100}") from error
    return scenario, rate


def _read_summary(summary: bytes) -> Iterator[tuple[str, str]]:
    for line in summary.decode().splitlines():
        name, _, value = line.partition(": ")
        yield name, value.strip()


def _choose_threshold(scenario: str, score: float) -> float:
    """The share by which a score may differ from `score`."""
    is_relaxed = score <= _RELAXED_UP_TO.get(scenario, -1)
    return _RELAXED_THRESHOLD if is_relaxed else _THRESHOLD
