"""The official submission checker of a checkout of mlcommons/inference: run, and understood."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ck_mlperf.common.errors import UserError
from ck_mlperf.submission.complaints import Complaint

_CHECKER = Path("tools", "submission", "submission_checker", "main.py")
_VERSIONS = re.compile(r"--version\s+\{([^}]+)\}")

# What the checker prints for each kind, as it is at commit b66003e10e2db4b8c36a448b0545ec90fcc6e9e9
# of mlcommons/inference. Where a line names its subject, the group has it.
_LINES = {
    "scenarios-missing": r"does not have all required scenarios, missing (?P<subject>\[.*\])",
    "scenarios-unknown": r"has all unknown scenarios for this benchmark (?P<subject>\[.*\])",
    "log-errors": r"has loadgen errors, number of errors",
    "samples-in-memory": r"performance_sample_count, found",
    "seed": r" (?P<subject>\w+_rng_seed) is wrong",
    "early-stopping": r"Early stopping condition was not met",
    "latency-bound": r"Latency constraint (with early stopping )?not met",
    "offline-samples": r"Required minimum samples per query not met",
    "query-count": r"Required minimum Query Count not met",
    "duration": r"Test duration less than 600s",
    "network-mode": r"incorrect network mode",
    "network-name": r"invalid sut name for network mode",
    "not-inferable": r"can not be inferred",
    "no-estimate": r"Not enough samples were processed for early stopping",
    "accuracy-low": r"accuracy not met: expected",
    "hash-missing": r"not hash value for accuracy.txt",
    "accuracy-log-missing": r"mlperf_log_accuracy.json is missing$",
    "not-truncated": r"is not truncated$",
    "dataset-size": r"accurcy run does not cover all dataset",
    "status": r"has invalid status \(",
    "system-type": r"has invalid system type \(",
    "field-missing": r", field (?P<subject>\S+) is missing$",
    "field-empty": r", field (?P<subject>\S+) (requires a meaningful|is missing meaningful)",
    "submitter": r"has submitter .*, directory has",
    "division": r"has division .*, directory has",
    "system-missing": r"system json file not found",
    "measurements-missing": r"measurements json file not found",
    "src-missing": r"src directory does not exist",
    "file-missing": r"is missing (?P<subject>user\.conf|README\.md)$",
    "file-empty": r"is having empty (?P<subject>\S+)$",
    "log-missing": r"Could not load json file from|Yaml file not found",
    "test-missing": r"Missing (?P<subject>TEST\d\d) in compliance dir",
    "test-file-missing": r"(Needs file |^)\S*/TEST\d\d/(?P<subject>\S+)( is missing in|$)"
    r"|has no (?P<folder>performance/run_1|accuracy) directory",
    "test-files": r"/TEST\d\d/(?P<subject>\S+) has file list mismatch",
    "test-performance": r"Compliance test performance check in \S+ failed",
    "test-accuracy": r"Compliance test accuracy check \(non-deterministic mode\) in \S+ failed",
}
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in _LINES.items()}
# A check that raised: its class and name say what was missing.
_RAISED = re.compile(r"Execution occurred in running check .*\. Running (\w+) in (\w+)")
_RAISED_KINDS = {
    "accuracy_result_check": ("accuracy-txt", ""),
    "accuracy_json_check": ("accuracy-log-missing", ""),
    "availability_check": ("field-missing", "status"),
    "submitter_check": ("field-missing", "submitter"),
    "division_check": ("field-missing", "division"),
    "dataset_check": ("benchmark-unknown", ""),  # it raises for nothing else
    "network_check": ("field-missing", "is_network"),
    "required_fields_check": ("measurements-missing", ""),
    "accuracy_check": ("test-file-missing", "verify_accuracy.txt"),
}
# A traceback that ended the checker: (function, words of the error) to the kind.
_ENDS = (
    ("load", "NoneType' object has no attribute 'get'", "system-missing"),
    ("load", "has no attribute 'get'", "not-json"),
    ("set_type", "invalid system type", "system-type"),
    ("lower_list", "NoneType", "type-has-no-benchmark"),
    ("__init__", "NoneType' object is not subscriptable", "log-missing"),
    ("map_endpoints_scenario", "", "log-missing"),
    ("load_single_log", "JSONDecodeError", "not-json"),
    ("", "RuntimeError: Marker", "log-unreadable"),
    ("", "RuntimeError: Encountered invalid line", "log-unreadable"),
    ("", "UnicodeDecodeError", "log-unreadable"),
    ("list_dir", "FileNotFoundError", "folder-missing"),
    ("add_result", "invalid literal for int()", "not-a-number"),
    ("add_result", "TypeError", "field-missing"),
)
_LINE = re.compile(r"\[\S+ \S+ (?P<file>\w+\.py):\d+ (?P<level>[A-Z]+)\] (?P<text>.*)")
_WHERE = re.compile(
    r"(?:^|/)((?:closed|open|network)/[^/\s]+)"
    r"(?:/results/([^/\s]+)(?:/([^/\s]+)(?:/([^/\s]+)(?:/(TEST\d\d))?)?)?)?"
)
_CONSEQUENCES = {
    "test-missing": ("test-file-missing",),
    "benchmark-unknown": ("log-incomplete", "accuracy-txt"),
}
_OF_SYSTEM_FIELDS = ("status", "submitter", "division", "is_network")
# What the checker says besides, which is no complaint of its own.
_SUMMARIES = re.compile(r"^NoResults |^SUMMARY: |contains errors:$")
_OF_SYSTEM = {"network-mode", "status", "system-type", "submitter", "division", "not-a-number"}


class Said(NamedTuple):
    """What the official checker said of a tree."""

    passed: bool
    version: str
    complaints: list[Complaint]
    unknown: list[str]
    """Lines at the level of an error that this module does not know."""
    output: str


def run_checker(checkout: Path, tree: Path) -> Said:
    """Run the checker as it is there, by the newest version that it has.

    checkout: of mlcommons/inference. tree: the folder that has closed/ and open/.
    Raises UserError where there is no checker, or it does not run.
    """
    checker = checkout / _CHECKER
    if not checker.is_file():
        raise UserError(
            f"{checker}: no such file. --check wants a checkout of mlcommons/inference: `git clone "
            "https://github.com/mlcommons/inference`"
        )
    command = [sys.executable, str(checker.resolve())]
    helped = _run([*command, "--help"], tree)
    versions = _VERSIONS.search(helped.stdout)
    if helped.returncode or versions is None:
        raise UserError(
            f"{checker} --help: {helped.stderr.strip()[-2000:] or 'names no versions'}. Its "
            "requirements belong into this Python: `pip install pyyaml`"
        )
    version = max(versions[1].split(","), key=_order_versions)
    with tempfile.TemporaryDirectory() as temporary:
        ran = _run(
            [
                *command,
                f"--input={tree.resolve()}",
                f"--version={version}",
                f"--csv={temporary}/summary.csv",
            ],
            Path(temporary),
        )
    output = ran.stdout + ran.stderr
    complaints, unknown = read_output(output)
    return Said(ran.returncode == 0, version, complaints, unknown, output)


def read_output(output: str) -> tuple[list[Complaint], list[str]]:
    """The complaints in what the checker printed, each once; and the errors that are unknown.

    What only follows from another complaint is left out.
    """
    reader = _Reader()
    complaints = list(dict.fromkeys(reader.read(output)))
    for kind, consequences in _CONSEQUENCES.items():
        places = [complaint.where for complaint in complaints if complaint.kind == kind]
        complaints = [
            complaint
            for complaint in complaints
            if complaint.kind not in consequences
            or not any(place.startswith(complaint.where) for place in places)
        ]
    return complaints, reader.unknown


class _Reader:
    """Goes through the output, and remembers which folder is being checked."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self._path = ""
        self._count = 0
        self._started: dict[str, int] = {}
        self._is_listing_errors = False

    def read(self, output: str) -> Iterator[Complaint]:
        counts = re.search(r"Results=(\d+), NoResults=(\d+)", output)
        head, is_ended, traceback = output.partition("Traceback (most recent call last):")
        for line in head.splitlines():
            match = _LINE.match(line)
            if match is not None:
                yield from self._read_line(match["level"], match["text"])
        if is_ended:
            yield from self._read_traceback(traceback)
        elif counts and int(counts[2]) > head.count("NoResults "):
            yield Complaint("result-zero", "")

    def _read_line(self, level: str, text: str) -> Iterator[Complaint]:
        started = re.match(r"Starting (.*) for: (.*)", text)
        if started:
            self._started[started[1]], self._path = self._count, started[2]
            return
        loaded = re.match(r"(Loading|Could not load) \w+ log from (\S+)", text)
        if loaded:
            self._path = loaded[2].rstrip(",")
            return
        if level not in ("ERROR", "WARNING"):
            return
        if self._is_listing_errors and "has loadgen errors" not in text:
            return  # LoadGen's own words
        self._is_listing_errors = text.endswith("contains errors:")
        found = list(self._match(text))
        self._count += len(found)
        failed = re.match(r"Some (.*) Checks failed for", text)
        if found:
            yield from found
        elif failed:
            if self._started.get(failed[1]) == self._count:  # without a word why
                kind = "accuracy-not-found" if "accuracy" in failed[1] else "test-accuracy"
                yield self._make(kind, "", text)
        elif level == "ERROR" and not _SUMMARIES.search(text):
            self.unknown.append(text)

    def _match(self, text: str) -> Iterator[Complaint]:
        raised = _RAISED.search(text)
        if raised:
            check, of_class = raised.groups()
            if of_class == "ComplianceCheck" and check == "performance_check":
                kind, subject = "test-file-missing", "performance/run_1/mlperf_log_detail.txt"
            else:
                kind, subject = _RAISED_KINDS.get(check, ("log-incomplete", ""))
            yield self._make(kind, subject, text)
            return
        for kind, pattern in _PATTERNS.items():
            match = pattern.search(text)
            if match:
                groups = match.groupdict()
                yield self._make(kind, groups.get("subject") or groups.get("folder") or "", text)

    def _read_traceback(self, text: str) -> Iterator[Complaint]:
        error = text.strip().splitlines()[-1]
        function = re.findall(r"in (\w+)\n", text)
        last = next((name for name in reversed(function) if name != "__getitem__"), "")
        for name, words, kind in _ENDS:
            if (not name or name in function) and (words in error):
                made = self._make(kind, "", "")
                # Which of the scenario's files, or that it is the system's, it does not say.
                depth = 4 if name == "add_result" else 6
                yield made._replace(where="/".join(made.where.split("/")[:depth]))
                return
        self.unknown.append(f"ended in {last}: {error}")

    def _make(self, kind: str, subject: str, text: str) -> Complaint:
        if subject.startswith("["):
            subject = ", ".join(sorted(re.findall(r"'([^']*)'", subject)))
        match = _WHERE.search(text) or _WHERE.search(self._path)
        if match is None:
            return Complaint(kind, "", subject)
        owner, system, benchmark, scenario, test = (
            part and part.rstrip(".,") for part in match.groups()
        )
        if kind == "test-missing":
            test = subject
        if kind in _OF_SYSTEM or (kind == "field-missing" and subject in _OF_SYSTEM_FIELDS):
            benchmark = scenario = test = None
        if kind.startswith("scenarios-"):
            scenario = test = None
        parts = [owner, *(["results", system] if system else []), benchmark, scenario, test]
        where = "/".join(part for part in parts if part)
        return Complaint(kind, where, subject)


def _order_versions(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
    )
