"""Our own check of one scenario's folder: its runs, what describes them, the compliance tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ck_mlperf.common.files import MOST_LOG_BYTES, read_json, read_regular, read_text
from ck_mlperf.loadgen.compliance import COMPLIANCE_TESTS
from ck_mlperf.loadgen.job import ACCURACY_LOG, DETAIL_LOG, SUMMARY_LOG
from ck_mlperf.submission import requirements
from ck_mlperf.submission.complaints import Complaint
from ck_mlperf.submission.compliance import ACCURACY_FILE, PASS, PERFORMANCE_FILE
from ck_mlperf.submission.detail_log import DetailLog
from ck_mlperf.submission.requirements import PERFORMANCE_FOLDER

# The forms of the line that the checker takes.
_ACCURACY = re.compile(r"(?:\{\"accuracy|accuracy)[\": ]*=?\s*([\d.]+)")
_HASH = re.compile(r"hash=(\w+)$")


@dataclass(frozen=True)
class Scenario:
    """The folder of a scenario, and what the checker knows of it."""

    folder: Path
    where: str
    division: str
    system_type: str
    is_network: bool

    @property
    def name(self) -> str:
        return self.folder.name


def check_scenario(scenario: Scenario) -> Iterator[Complaint]:
    """All that is wrong in the folder of a scenario."""
    yield from _check_log(scenario, f"{PERFORMANCE_FOLDER}/{DETAIL_LOG}", _check_performance)
    yield from _check_log(scenario, f"accuracy/{DETAIL_LOG}", _check_accuracy_log)
    yield from _check_answers(scenario)
    yield from _check_measurements(scenario)
    if (scenario.folder / "performance" / "power").exists():
        yield Complaint("not-checked", scenario.where, "power")
    if scenario.division != "open":
        for test in COMPLIANCE_TESTS:
            yield from _check_test(scenario, test)


class _MissingError(Exception):
    """The log has no such key, of the type that the checker computes with."""


class _Values:
    """Values of a detail log, by key."""

    def __init__(self, log: DetailLog) -> None:
        self._values = log.values
        self.errors = log.errors

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def number(self, key: str) -> float:
        value = self._values.get(key)
        if not isinstance(value, (int, float)):
            raise _MissingError(key)
        return value

    def text(self, key: str) -> str:
        value = self._values.get(key)
        if not isinstance(value, str):
            raise _MissingError(key)
        return value


def _check_log(scenario: Scenario, name: str, check: Any, where: str = "") -> Iterator[Complaint]:
    """Apply the checks of a detail log, each as far as the log has what it needs."""
    where = where or scenario.where
    path = scenario.folder / name
    if not path.exists():
        yield Complaint("log-missing", where, name)
        return
    try:
        values = _Values(DetailLog(read_regular(path, MOST_LOG_BYTES)))
    except ValueError as error:
        yield Complaint("log-unreadable", where, name, str(error))
        return
    if values.errors:
        yield Complaint("log-errors", where, name, "; ".join(values.errors[:3]))
    for part in check(scenario, values):
        try:
            yield from (Complaint(kind, where, subject, found) for kind, subject, found in part)
        except _MissingError as error:
            yield Complaint("log-incomplete", where, name, f"no {error}")


_Found = Iterator[tuple[str, str, str]]


def _check_performance(scenario: Scenario, log: _Values) -> Iterator[_Found]:
    yield _check_load(log)
    yield _check_early_stopping(scenario, log)
    yield _check_size(scenario, log)
    yield _check_scenario_name(scenario, log)
    yield _check_result(scenario, log)


def _check_load(log: _Values) -> _Found:
    for name, wanted in requirements.SEEDS.items():
        found = log.get(f"effective_{name}")
        if found != wanted:
            yield "seed", name, f"{found}, not {wanted}"
    if log.get("result_validity") != "VALID":
        yield "invalid", "", str(log.get("result_validity"))
    loaded = log.number("effective_performance_sample_count")
    if loaded < requirements.SAMPLES_IN_MEMORY:
        yield "samples-in-memory", "", f"{loaded:,} of {requirements.SAMPLES_IN_MEMORY:,}"


def _check_early_stopping(scenario: Scenario, log: _Values) -> _Found:
    ran = log.get("effective_scenario")
    bound = requirements.SERVER_BOUND_NS
    if ran not in ("SingleStream", "MultiStream", "Server"):
        is_server = scenario.name.lower() == "server"
        if is_server and log.number("result_99.00_percentile_latency_ns") > bound:
            yield "latency-bound", "", f"the log is of {ran}"
    elif not log.get("early_stopping_met"):
        yield "early-stopping", "", " ".join(str(log.get("early_stopping_result")).split())
    elif ran == "Server" and log.number("effective_target_latency_ns") > bound:
        yield "latency-bound", "", f"{log.number('effective_target_latency_ns') / 1e6:g} ms"


def _check_size(scenario: Scenario, log: _Values) -> _Found:
    duration_ms = log.number("effective_min_duration_ms")
    if duration_ms < requirements.LEAST_DURATION_MS:
        yield "duration", "", f"{duration_ms / 1000:g} s"
    if log.text("effective_scenario") == "Offline":
        if log.number("effective_min_query_count") < 1:
            yield "query-count", "", "0"
        samples = log.number("effective_samples_per_query")
        if samples < requirements.OFFLINE_SAMPLES and scenario.division == "closed":
            yield "offline-samples", "", f"{samples:,}"
    is_named = scenario.is_network and scenario.division != "closed"
    if is_named and "Network SUT" not in log.text("sut_name"):
        yield "network-name", "", log.text("sut_name")


def _check_scenario_name(scenario: Scenario, log: _Values) -> _Found:
    ran = log.text("effective_scenario").lower()
    if ran != scenario.name.lower():
        pair = (ran, scenario.name.lower())
        if "edge" not in scenario.system_type.lower() or pair not in requirements.INFERABLE:
            yield "not-inferable", "", log.text("effective_scenario")


def _check_result(scenario: Scenario, log: _Values) -> _Found:
    ran = log.text("effective_scenario")
    if ran not in requirements.RESULT_KEYS:
        raise _MissingError(f"result of {ran}")
    try:
        result = float(log.get(requirements.RESULT_KEYS[ran]))
    except (TypeError, ValueError):
        raise _MissingError(requirements.RESULT_KEYS[ran]) from None
    if ran == "SingleStream" and scenario.name.lower() == "multistream":
        result = log.number("early_stopping_latency_ms")
        if result == 0:
            yield "no-estimate", "", ""
    if not result:
        yield "result-zero", "", requirements.RESULT_KEYS[ran]


def _check_accuracy_log(scenario: Scenario, log: _Values) -> Iterator[_Found]:
    def check() -> _Found:
        count = log.get("effective_accuracy_sample_count")
        count = log.get("qsl_reported_total_count") if count is None else count
        if count != requirements.DATASET_SIZE:
            yield (
                "dataset-size",
                "",
                f"accuracy samples: {count}, dataset size: {requirements.DATASET_SIZE}",
            )

    yield check()


def _check_answers(scenario: Scenario) -> Iterator[Complaint]:
    """The files that the accuracy comes from: accuracy.txt, and the truncated log."""
    path = scenario.folder / "accuracy" / ACCURACY_LOG
    if not path.exists():
        yield Complaint("accuracy-log-missing", scenario.where)
    elif path.stat().st_size > requirements.MOST_LOG_BYTES:
        yield Complaint("not-truncated", scenario.where, "", f"{path.stat().st_size:,} bytes")
    try:
        text = read_text(scenario.folder / "accuracy" / "accuracy.txt")
        percent = _read_accuracy(text)
    except (OSError, ValueError):
        yield Complaint("accuracy-txt", scenario.where)
        return
    if not percent:
        yield Complaint("accuracy-not-found", scenario.where)
    elif percent < requirements.LEAST_ACCURACY:
        yield Complaint("accuracy-low", scenario.where, "", f"{percent:.3f}%")
    if not any(_HASH.match(line) for line in text.splitlines()):
        yield Complaint("hash-missing", scenario.where)


def _read_accuracy(text: str) -> float:
    """Per cent, the worst where there are several; 0 where there is none. Raises ValueError."""
    found = [_ACCURACY.match(line) for line in text.splitlines()]
    return min((float(match[1]) for match in found if match), default=0.0)


def _check_measurements(scenario: Scenario) -> Iterator[Complaint]:
    path = scenario.folder / "measurements.json"
    try:
        fields = read_json(path)
    except OSError:
        yield Complaint("measurements-missing", scenario.where)
    except ValueError:
        yield Complaint("not-json", scenario.where, path.name)
    else:
        for name in requirements.MEASUREMENT_FIELDS:
            if name not in fields:
                yield Complaint("field-missing", scenario.where, name)
            elif not fields[name]:
                yield Complaint("field-empty", scenario.where, name)
    for name in ("user.conf", "README.md"):
        path = scenario.folder / name
        if not path.is_file():
            yield Complaint("file-missing", scenario.where, name)
        elif not path.stat().st_size:
            yield Complaint("file-empty", scenario.where, name)


def _check_test(scenario: Scenario, test: str) -> Iterator[Complaint]:
    """One compliance test, which closed wants of each scenario."""
    folder, where = scenario.folder / test, f"{scenario.where}/{test}"
    if not folder.is_dir():
        yield Complaint("test-missing", where, test)
        return
    if (folder / PERFORMANCE_FOLDER / DETAIL_LOG).exists():
        yield from _check_log(
            scenario, f"{test}/{PERFORMANCE_FOLDER}/{DETAIL_LOG}", _check_performance, where
        )
    else:
        yield Complaint("test-file-missing", where, f"{PERFORMANCE_FOLDER}/{DETAIL_LOG}")
    if (folder / PERFORMANCE_FOLDER).is_dir():
        yield from _compare_files(
            folder, where, PERFORMANCE_FOLDER, {DETAIL_LOG, SUMMARY_LOG}, {ACCURACY_LOG}
        )
    else:
        yield Complaint("test-file-missing", where, PERFORMANCE_FOLDER)
    performance = _read_text(folder / PERFORMANCE_FILE)
    if performance is None:
        yield Complaint("test-file-missing", where, PERFORMANCE_FILE)
    elif PASS not in performance:
        yield Complaint("test-performance", where)
    if test == "TEST01":
        yield from _check_test_accuracy(folder, where)


def _check_test_accuracy(folder: Path, where: str) -> Iterator[Complaint]:
    """TEST01's answers: the same one by one, or else as accurate on the whole."""
    verified = _read_text(folder / ACCURACY_FILE)
    if verified is None:
        yield Complaint("test-file-missing", where, ACCURACY_FILE)
        return
    if PASS in map(str.strip, verified.splitlines()):
        return
    if not (folder / "accuracy").is_dir():
        yield Complaint("test-file-missing", where, "accuracy")
        return
    compared = ("baseline_accuracy.txt", "compliance_accuracy.txt")
    odd = list(
        _compare_files(folder, where, "accuracy", {ACCURACY_LOG, "accuracy.txt", *compared}, set())
    )
    yield from odd
    if odd:
        return
    baseline, found = (_read_accuracy(_read_text(folder / "accuracy" / n) or "") for n in compared)
    delta = abs(1 - baseline / found) * 100 if found else 100.0
    if not baseline or delta > requirements.ACCURACY_DELTA_PERCENT:
        yield Complaint("test-accuracy", where, "", f"{found:g}%, baseline {baseline:g}%")


def _compare_files(
    folder: Path, where: str, name: str, wanted: set[str], optional: set[str]
) -> Iterator[Complaint]:
    present = {path.name for path in (folder / name).iterdir() if path.is_file()}
    odd = present ^ wanted
    odd -= optional | {"mlperf_log_trace.json", "results.json", ".gitkeep"}
    if odd:
        yield Complaint("test-files", where, name, ", ".join(sorted(odd)))


def _read_text(path: Path) -> str | None:
    return read_text(path) if path.is_file() else None
