"""What can be wrong with a submission's tree, and what to do about it.

The same kinds are found by our own check (check.py) and read from what the official checker prints
(official.py).
"""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """One thing that can be wrong."""

    what: str
    """With {subject} where the complaint has one."""
    advice: str
    """What to do."""
    fails: bool = True
    """Whether the official checker refuses the scenario for it; False: see `fails_in_closed`."""
    fails_in_closed: bool = True
    """Whether it does in closed."""
    is_ours: bool = False
    """The official checker does not look at it."""


class Complaint(NamedTuple):
    """A kind, at a place."""

    kind: str
    """One of KINDS."""
    where: str
    """In the tree: closed/NAME/results/SYSTEM/resnet50/Offline, with /TEST01 behind it for a
    compliance test; closed/NAME/results/SYSTEM for the description of a system; ..."""
    subject: str = ""
    """The field, file, scenario or key that it is about."""
    found: str = ""
    """What is there, in words or figures."""

    def says_what(self, other: Complaint) -> bool:
        """Whether it says what `other` says, which may name a wider place, or no subject."""
        return (
            self.kind == other.kind
            and f"{self.where}/".startswith(f"{other.where}/" if other.where else "")
            and other.subject in ("", self.subject)
        )

    @property
    def fails(self) -> bool:
        """Whether the official checker refuses the scenario for it (or would have to)."""
        kind = KINDS[self.kind]
        return kind.fails or (kind.fails_in_closed and not self.where.startswith("open/"))

    @property
    def what(self) -> str:
        """What is wrong, without the place."""
        return KINDS[self.kind].what.format(subject=self.subject)

    def describe(self) -> str:
        """A line on what is wrong and one on what to do."""
        found = f": {self.found}" if self.found else ""
        advice = KINDS[self.kind].advice.format(subject=self.subject)
        return f"{self.where}: {self.what}{found}\n  -> {advice}"


_AGAIN = "Write the tree again with `ck submit loadgen`"
_RUN = "run it again (`ck explore loadgen --submission=...` runs what is missing)"
_YAML = "Fill in {subject} in the file that --system names, and write the tree again"

KINDS: dict[str, Kind] = {
    # the tree
    "empty": Kind(
        "no closed/, open/ or network/ with a submitter's results in it",
        "--out_dir must name the folder that holds closed/ and open/",
        is_ours=True,
    ),
    "folder-missing": Kind("no folder {subject}", _AGAIN),
    "src-missing": Kind("no folder src", f"The code that ran belongs there. {_AGAIN}"),
    "not-json": Kind("{subject} is not JSON, or not an object", _AGAIN),
    "not-checked": Kind(
        "{subject} is not checked here",
        "Have the official checker look: --check=PATH",
        fails=False,
        fails_in_closed=False,
        is_ours=True,
    ),
    "scenarios-missing": Kind(
        "the closed division also requires {subject}",
        "Run the missing scenarios (`ck explore loadgen --submission=...` does), or submit to open",
    ),
    "scenarios-unknown": Kind(
        "the round has no {subject} for a system of this type",
        "Leave those scenarios out, or set system_type to one that has them",
    ),
    "type-has-no-benchmark": Kind(
        "in closed, the round has no such benchmark for a system of type {subject}",
        "ResNet-50, in the folder resnet50, requires edge or datacenter,edge: set system_type "
        "to one if that is true of the system, or submit to open",
    ),
    "benchmark-unknown": Kind(
        "the round has no benchmark of that name",
        "In open, model_mapping.json must map it to one: {{NAME: resnet}}. Write the tree again",
    ),
    # logs
    "log-missing": Kind("no {subject}", f"The run's log is missing: {_RUN}"),
    "log-unreadable": Kind(
        "{subject} is not a log as LoadGen writes it",
        f"It was cut off or edited. {_AGAIN}; if that does not help, {_RUN}",
    ),
    "log-incomplete": Kind(
        "the checker cannot find what it needs in {subject}",
        f"The log is cut off, or of another LoadGen: {_RUN}",
    ),
    "log-errors": Kind(
        "LoadGen reported errors in {subject}",
        f"A run with errors has no result. Fix what they report, and {_RUN}",
    ),
    # performance
    "invalid": Kind(
        "LoadGen calls the run INVALID",
        f"`ck analyze loadgen` says why. Fix that, and {_RUN}",
        is_ours=True,
    ),
    "samples-in-memory": Kind(
        "too few images in memory",
        "Set CK_LOADGEN_BUFFER_SIZE and CK_LOADGEN_DATASET_SIZE to 1024 or more, and run again",
    ),
    "seed": Kind(
        "{subject} is not that of the round",
        "Seeds come with LoadGen's mlperf.conf: install the LoadGen of the round, and run again",
    ),
    "early-stopping": Kind(
        "too few queries for the early-stopping estimate, or too many were late",
        "Run longer (CK_LOADGEN_DURATION), or lower Server's CK_LOADGEN_TARGET_QPS",
    ),
    "latency-bound": Kind(
        "Server's latency bound is over 15 ms",
        "Set CK_LOADGEN_TARGET_LATENCY to 15, or leave it out, and run again",
    ),
    "offline-samples": Kind(
        "too few samples in Offline's query",
        "The closed division requires 24,576: leave CK_LOADGEN_COUNT_OVERRIDE out, and run again",
    ),
    "query-count": Kind(
        "min_query_count is too small", "Leave CK_LOADGEN_COUNT_OVERRIDE out, and run again"
    ),
    "duration": Kind(
        "the run was set to last less than 600 s",
        "The setting counts, not the time that passed: set CK_LOADGEN_DURATION=600, and run again",
    ),
    "network-mode": Kind(
        "is_network does not fit the division",
        "Leave is_network out for closed; a network system belongs in network/",
    ),
    "network-name": Kind(
        "LoadGen's name of the system has no `Network SUT`",
        "This program measures one machine: leave is_network out",
    ),
    "not-inferable": Kind(
        "the log is of another scenario, from which this one cannot be inferred",
        "Only an edge system may infer, MultiStream from SingleStream and Offline from either: "
        f"{_RUN}",
    ),
    "no-estimate": Kind(
        "SingleStream's run is too short for the estimate that MultiStream is inferred from",
        "Run SingleStream longer, or measure MultiStream",
    ),
    "result-zero": Kind("the result is 0, which counts as none", f"Too few queries: {_RUN}"),
    # accuracy
    "accuracy-low": Kind(
        "accuracy below 75.695%, which is 99% of 76.46%",
        "The closed division requires this accuracy, the open division does not",
        fails=False,
    ),
    "accuracy-not-found": Kind("accuracy.txt has no line accuracy=...%", _AGAIN, fails=False),
    "hash-missing": Kind(
        "accuracy.txt has no line hash=...",
        f"It must be the hash of the whole log. {_AGAIN}",
        fails=False,
    ),
    "accuracy-txt": Kind("accuracy.txt is missing, or unreadable", _AGAIN),
    "accuracy-log-missing": Kind("no mlperf_log_accuracy.json", _AGAIN),
    "not-truncated": Kind("mlperf_log_accuracy.json is over 10 KiB", f"Truncate it. {_AGAIN}"),
    "dataset-size": Kind(
        "the accuracy run does not cover the data set of 50,000 images",
        "Run accuracy on the whole validation set of ImageNet: leave CK_LOADGEN_DATASET_SIZE out",
    ),
    # the system
    "system-missing": Kind("no description of the system, {subject}", _AGAIN),
    "status": Kind("status is none of available, preview, rdi", "Set status in --system's file"),
    "system-type": Kind(
        "system_type is none of edge, datacenter, `datacenter,edge`",
        "Set system_type in --system's file",
    ),
    "field-missing": Kind("field {subject} is missing, or not text", _YAML),
    "field-empty": Kind("field {subject} is empty", f"{_YAML}; N/A where there is none"),
    "not-a-number": Kind("field {subject} is not a whole number", _YAML),
    "submitter": Kind("the description names another submitter", _AGAIN),
    "division": Kind("the description names another division", _AGAIN),
    # measurements
    "measurements-missing": Kind("no measurements.json", _AGAIN),
    "file-missing": Kind("no {subject}", _AGAIN),
    "file-empty": Kind("{subject} is empty", _AGAIN),
    # compliance
    "test-missing": Kind(
        "the closed division requires this compliance test",
        "Record it with --env.CK_LOADGEN_COMPLIANCE={subject}, and write the tree again",
    ),
    "test-file-missing": Kind("no {subject}", _AGAIN),
    "test-files": Kind("{subject} has files that do not belong there, or lacks some", _AGAIN),
    "test-performance": Kind(
        "the compliance test's speed is not that of the run",
        "verify_performance.txt has both figures. Run both again on a quiet machine",
    ),
    "test-accuracy": Kind(
        "the answers in performance mode differ from those of the accuracy run",
        "verify_accuracy.txt says how many. The same model, images and settings must answer both",
    ),
}
