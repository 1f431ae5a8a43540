"""LoadGen's logs, read strictly: whatever is missing, cut off or not LoadGen's is an error.

The formats are those that LoadGen 6.0.17 writes (logging.cc and results.cc): mlperf_log_detail.txt
has one JSON object a line after `:::MLLOG `; mlperf_log_accuracy.json one sample a line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import open_regular
from ck_mlperf.loadgen.job import ACCURACY_LOG, DETAIL_LOG
from ck_mlperf.results.record import Counts, EarlyStopped, Latencies, Mode, Scenario, Throughput
from ck_mlperf.results.verdicts import Compliance, Constraint, Message

# Our name of each latency figure and the part of LoadGen's key that stands for it.
LATENCY_KEYS = {
    "min": "min",
    "mean": "mean",
    "p50": "50.00_percentile",
    "p90": "90.00_percentile",
    "p95": "95.00_percentile",
    "p97": "97.00_percentile",
    "p99": "99.00_percentile",
    "p99_9": "99.90_percentile",
    "max": "max",
}
_PREFIX = b':::MLLOG {"key": "'
_WANTED = re.compile(
    r"(result_|effective_|early_stopping_|generated_samples_per_query|loadgen_version|power_"
    r"|num_errors|generic_message)"
)
_FLAGGED = re.compile(rb'"is_(error|warning)": true')
# LoadGen prints a rate over no time as C++ does; JSON has no such number.
_NOT_A_NUMBER = re.compile(rb'("value": )-?(nan|inf)\b')
_PEAK = "FindPeakPerformance: Found peak performance field: "
# loadgen.cc, StartTest.
_AUDIT = "Found Audit Config file"
# issue_query_controller.cc and loadgen.cc say in an error of the log what ended the queries.
Ending = Literal["open queries", "max_query_count", "max_duration", "ran out", "no start"]
_ENDINGS: dict[str, Ending] = {
    "Too many outstanding queries": "open queries",
    "Max query count reached": "max_query_count",
    "Max test duration reached": "max_duration",
    "Ran out of generated queries": "ran out",
    "Initial lower bound does not satisfy": "no start",
}
_SAMPLE = re.compile(
    rb'\{ "seq_id" : \d{1,19}, "qsl_idx" : (\d{1,19}), "data" : "([0-9A-Fa-f]{8})" \}(,?)\n'
)
_MET: dict[Constraint, str] = {
    "latency": "result_perf_constraints_met",
    "duration": "result_min_duration_met",
    "queries": "result_min_queries_met",
    "early stopping": "early_stopping_met",
}
_LATE = "result_overlatency_query_count"
# Longer lines exist (the list of loaded samples) and are passed over.
_MAX_LINE_BYTES = 1 << 16
_MAX_MESSAGES = 20

_T = TypeVar("_T", int, float, bool, str)


class Performance(msgspec.Struct, frozen=True):
    """What LoadGen measured in the performance part of a test: the record's parts, and more."""

    is_valid: bool
    """LoadGen's verdict, under the settings that were in force."""
    reasons: list[str]
    """Why it is not valid."""
    duration_s: float
    """From the first query's issue to the last one's completion."""
    counts: Counts
    throughput: Throughput
    latencies_ns: Latencies
    early_stopped_ns: EarlyStopped
    not_met: list[Constraint] = []
    """LoadGen's constraints that were not met."""
    late_queries: int | None = None
    """Queries over the latency bound, in Server."""


class LoadgenResult(msgspec.Struct, frozen=True):
    """What one test's detail log says."""

    version: str
    scenario: Scenario
    mode: Mode
    settings: dict[str, int | float | bool | str]
    """LoadGen's settings in force, under its names without `effective_`: min_duration_ms, ..."""
    performance: Performance | None
    """None in AccuracyOnly."""
    errors: list[Message]
    warnings: list[Message]
    ending: Ending | None = None
    """What ended the queries early: a limit of open queries, of queries or of time, or that LoadGen
    had made no more ("ran out"). FindPeakPerformance ends where its first rate is too high already
    ("no start"). None: nothing did."""
    compliance: Compliance | None = None
    """Which compliance test it is: an audit.config had set it up. None: it is none."""
    revision: str = ""
    """The commit of LoadGen's git that it was built from, abbreviated."""

    def get_number(self, name: str) -> float:
        """A setting in force; not a number where LoadGen's log has none of that name."""
        value = self.settings.get(name)
        return float(value) if isinstance(value, (int, float)) else math.nan


def read_result(log_dir: Path) -> LoadgenResult:
    """Read the detail log in `log_dir`.

    Raises UserError that names the file where it is missing, cut off, of an unfinished test, or not
    LoadGen's.
    """
    path = log_dir / DETAIL_LOG
    values: dict[str, Any] = {}
    errors: dict[str, int] = {}
    warnings: dict[str, int] = {}
    for key, value, metadata in _read_events(path):
        if key == "generic_message" and str(value).startswith(_PEAK):
            values["peak_qps"] = _parse_number(value.removeprefix(_PEAK))
        if str(value).startswith(_AUDIT):
            values["audit.config"] = True
        values[key] = value  # of a key that comes twice, the last: the performance part's
        for flag, messages in (("is_error", errors), ("is_warning", warnings)):
            if metadata.get(flag) is True and (str(value) in messages or len(messages) < 1000):
                messages[str(value)] = messages.get(str(value), 0) + 1
    log = _Values(path, values)
    try:
        scenario: Scenario = msgspec.convert(log.get("effective_scenario", str), Scenario)
        mode: Mode = msgspec.convert(log.get("effective_test_mode", str), Mode)
    except msgspec.ValidationError as error:
        raise log.refuse(f"unknown scenario or mode: {error}") from error
    log.get("power_end", str)  # the last thing that each part of a test writes before its results
    endings = (ending for text, ending in _ENDINGS.items() if any(text in one for one in errors))
    version, _, revision = log.get("loadgen_version", str).partition(" @ ")
    return LoadgenResult(
        version=version,
        revision=revision,
        scenario=scenario,
        mode=mode,
        settings={
            key.removeprefix("effective_"): value
            for key, value in values.items()
            if key.startswith("effective_") and isinstance(value, (int, float, bool, str))
        },
        performance=None if mode == "AccuracyOnly" else _read_performance(log, scenario),
        errors=_count(errors),
        warnings=_count(warnings),
        ending=next(endings, None),
        compliance=_find_compliance(values) if "audit.config" in values else None,
    )


def _find_compliance(values: Mapping[str, Any]) -> Compliance:
    """Which test an audit.config set up (mlcommons/inference, compliance/)."""
    if values.get("effective_accuracy_log_sampling_target"):
        return "TEST01"
    return "TEST04" if values.get("effective_performance_issue_same") else "unknown"


def read_answers(log_dir: Path) -> Iterator[tuple[int, int]]:
    """The (sample index, label) pairs of the accuracy log in `log_dir`, as LoadGen got them.

    Labels are int32, four bytes in the machine's (little-endian) order. Raises UserError that names
    the file and the line where the log is missing, cut off, or of another form.
    """
    path = log_dir / ACCURACY_LOG
    # '[' opens, ',' asks for one more sample, '' is after the last one, ']' is the end.
    state = b""
    for number, line in _read_lines(path):
        if number == 1 and line == b"[\n":
            state = b"["
        elif line == b"]\n" and state in (b"[", b"."):
            state = b"]"
        else:
            match = _SAMPLE.fullmatch(line) if state in (b"[", b",") else None
            if match is None:
                raise UserError(
                    f"{path}, line {number}: not what LoadGen writes there for int32 labels: "
                    f"{line[:80]!r}. Run the accuracy test again"
                )
            state = match[3] or b"."
            yield (
                int(match[1]),
                int.from_bytes(bytes.fromhex(match[2].decode()), "little", signed=True),
            )
    if state != b"]":
        raise UserError(f"{path}: cut off. Run the accuracy test again; is the disk full?")


class _Values:
    """The log's values by key, and typed access to them."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self._path = path
        self._values = values

    def get(self, key: str, kind: type[_T]) -> _T:
        if key not in self._values:
            raise UserError(
                f"{self._path}: no {key} in it: the test did not finish, or the file is cut off. "
                "Run the test again"
            )
        value = self._values[key]
        fits = type(value) is kind or (kind is float and type(value) is int)
        # LoadGen's numbers are counts, times and rates.
        if isinstance(value, (int, float)) and value < 0:
            raise UserError(
                f"{self._path}: {key} = {value}: the wall clock, by which LoadGen times, was set "
                "back during the test. Run it again once the clock is synchronised (`timedatectl`)"
            )
        if not fits or (isinstance(value, (int, float)) and not 0 <= value < math.inf):
            raise self.refuse(f"{key} = {str(value)[:80]!r}")
        return kind(value)

    def get_time(self, key: str) -> datetime:
        text = self.get(key, str)
        try:
            return datetime.strptime(text, "%m-%d-%Y %H:%M:%S.%f")
        except ValueError:
            raise self.refuse(f"{key} = {text[:80]!r}") from None

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def is_met(self, key: str) -> bool:
        """Whether a constraint holds; one that the scenario does not have does."""
        return not self.has(key) or self.get(key, bool)

    def refuse(self, what: str) -> UserError:
        return UserError(
            f"{self._path}: {what}: not a detail log as LoadGen writes it. Run the test again"
        )


def _read_performance(log: _Values, scenario: str) -> Performance:
    log.get("num_errors", int)  # the last line of a finished test
    queries = log.get("result_query_count", int)
    samples_per_query = log.get("generated_samples_per_query", int)
    if not queries or not samples_per_query:
        raise log.refuse(f"{queries} queries of {samples_per_query} samples")
    duration_s = _measure_duration(log)
    rate_key = {
        "SingleStream": "result_qps_with_loadgen_overhead",
        "Server": "result_completed_samples_per_sec",
        "Offline": "result_samples_per_second",
    }.get(scenario)
    if rate_key is None:
        rate = queries * samples_per_query / duration_s if duration_s else 0.0
    else:
        rate = log.get(rate_key, float) if log.has(rate_key) else 0.0
    stopped = {
        "SingleStream": {"p90": "early_stopping_latency_ss", "p99": "early_stopping_latency_ms"},
        "MultiStream": {"p99": "early_stopping_latency_ms"},
    }.get(scenario, {})
    latencies_ns = _read_latencies(log, scenario)
    is_valid = log.get("result_validity", str) == "VALID"
    return Performance(
        is_valid=is_valid,
        reasons=[] if is_valid else list(_list_reasons(log, queries, duration_s, latencies_ns)),
        not_met=[] if is_valid else [name for name, key in _MET.items() if not log.is_met(key)],
        late_queries=log.get(_LATE, int) if log.has(_LATE) else None,
        duration_s=duration_s,
        counts=Counts(queries, queries * samples_per_query, samples_per_query),
        throughput=Throughput(
            samples_per_second=rate or None,
            queries_per_second=rate / samples_per_query or None,
            peak_qps=log.get("peak_qps", float) if log.has("peak_qps") else None,
        ),
        latencies_ns=latencies_ns,
        early_stopped_ns=EarlyStopped(
            **{
                name: log.get(stopped[name], int) or None if name in stopped else None
                for name in ("p90", "p99")
            }
        ),
    )


def _measure_duration(log: _Values) -> float:
    """Seconds from the first issue to the last completion, to the millisecond.

    The two times are rounded; LoadGen's own check of the shortest duration decides.
    """
    begin, end = (log.get_time(key) for key in ("power_begin", "power_end"))
    duration_s = max((end - begin).total_seconds(), 0.0)
    if log.get("result_min_duration_met", bool):
        duration_s = max(duration_s, log.get("effective_min_duration_ms", int) / 1000)
    return duration_s


def _read_latencies(log: _Values, scenario: str) -> Latencies:
    if scenario == "MultiStream":  # its plain keys are of samples
        keys = {
            name: f"result_{key}_per_query_latency_ns"
            if "percentile" in key
            else f"result_{key}_query_latency_ns"
            for name, key in LATENCY_KEYS.items()
        }
    else:
        keys = {name: f"result_{key}_latency_ns" for name, key in LATENCY_KEYS.items()}
    latencies = {name: log.get(key, int) for name, key in keys.items()}
    rising = [latency for name, latency in latencies.items() if name != "mean"]
    if rising != sorted(rising) or not rising[0] <= latencies["mean"] <= rising[-1]:
        raise log.refuse(f"latencies in no order ({latencies})")
    return Latencies(**latencies)


def _list_reasons(
    log: _Values, queries: int, duration_s: float, latencies_ns: Latencies
) -> Iterator[str]:
    if not log.is_met(_MET["latency"]):
        bound_ms = log.get("effective_target_latency_ns", int) / 1e6
        yield f"99th percentile {latencies_ns.p99 / 1e6:.3f} ms is over {bound_ms:g} ms"
    if not log.is_met(_MET["duration"]):
        shortest_s = log.get("effective_min_duration_ms", int) / 1000
        scheduled_rate = "result_scheduled_samples_per_sec"
        if log.has(scheduled_rate) and (rate := log.get(scheduled_rate, float)):
            # In Server, sending ends before the last answer.
            yield f"sent for {(queries - 1) / rate:.3f} s of the {shortest_s:g} s of min_duration"
        else:
            yield f"ran {duration_s:.3f} s of the {shortest_s:g} s of min_duration"
    if not log.is_met(_MET["queries"]):
        fewest = log.get("effective_min_query_count", int)
        yield f"ran {queries} of the {fewest} queries of min_query_count"
    if not log.is_met(_MET["early stopping"]):
        text = log.get("early_stopping_result", str).replace("*", " ")
        yield "early stopping: " + " ".join(text.split())


def _parse_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _count(messages: Mapping[str, int]) -> list[Message]:
    """The first messages; a log that has thousands of them has something else to tell."""
    return [Message(text[:500], count) for text, count in list(messages.items())[:_MAX_MESSAGES]]


def _read_events(path: Path) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """(key, value, metadata) of the lines that matter."""
    for number, line in _read_lines(path):
        where = f"{path}, line {number}"
        if not line.startswith(_PREFIX):
            raise UserError(
                f"{where}: not a detail log of today's LoadGen, whose lines begin with :::MLLOG"
            )
        if not _FLAGGED.search(line) and not _WANTED.match(
            line[len(_PREFIX) : len(_PREFIX) + 100].decode("ascii", "replace")
        ):
            continue
        try:
            event = json.loads(_NOT_A_NUMBER.sub(rb"\1null", line[len(b":::MLLOG ") :]))
            yield event["key"], event["value"], dict(event["metadata"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"{where}: damaged ({error!r:.100}). Run the test again") from None


def _read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The numbered lines of a file of any size; only the beginning of very long ones."""
    try:
        file = open_regular(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such LoadGen log. Run the test first") from None
    with file:
        number = 0
        while line := file.readline(_MAX_LINE_BYTES):
            number += 1
            end = line
            while not end.endswith(b"\n"):
                end = file.readline(_MAX_LINE_BYTES)
                if not end:
                    raise UserError(
                        f"{path}, line {number}: cut off. Run the test again; is the disk full?"
                    )
            yield number, line
    if not number:
        raise UserError(f"{path}: empty. Run the test again; is the disk full?")
