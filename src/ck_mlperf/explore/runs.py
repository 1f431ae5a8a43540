"""What a sweep or a search runs, one `ck benchmark` each, and what came of it.

`Point` says what is measured, `PlannedRun` the command that measures it once, `Outcome` the record
or the failure. An `Executor` carries out planned runs, on this machine (local.py) or on many.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

FAILURE_FORMAT = 1
EXPLORE_RUN = "CK_EXPLORE_RUN"
PERFORMANCE, ACCURACY = "PerformanceOnly", "AccuracyOnly"


@dataclass(frozen=True)
class Network:
    """A model and what runs it."""

    model: str = "digits"
    """The tags that tell the model from others, joined with commas."""
    precision: str | None = None
    """fp32, tf32, fp16 or int8; None: as the model's file is."""
    engine: str = "onnx"
    """onnx (ONNX Runtime, CPU), onnx-cuda or tensorrt."""
    weights: str | None = None
    """The tags of the `weights` dep as they are, in place of the three above."""

    def tags(self, batch: int) -> str:
        """The tags with which a run of batches up to `batch` asks CK for the network."""
        if self.weights is not None:
            return self.weights
        if self.engine == "tensorrt":
            precision = self.precision or "fp32"
            return f"model,tensorrt,{self.model},converted-from-onnx,{precision},maxbatch.{batch}"
        tags = f"model,onnx,{self.model}"
        if self.precision:
            tags += f",converted-from-onnx,{self.precision}"
        return tags + (",device.cuda" if self.engine == "onnx-cuda" else "")

    @property
    def has_accuracy(self) -> bool:
        """Whether its weights were trained; the program refuses to measure random ones."""
        return "random" not in self.tags(1).split(",")

    def __str__(self) -> str:
        if self.weights is not None:
            return self.weights
        return " ".join(word for word in (self.model, self.precision, self.engine) if word)


@dataclass(frozen=True)
class Point:
    """A network under a load: what is measured, once or as often as asked."""

    network: Network
    scenario: str
    """SingleStream, MultiStream, Server or Offline."""
    batch: int
    """CK_BATCH_SIZE: the most samples that the engine gets at once."""
    samples_per_query: int | None = None
    """MultiStream only."""
    target_qps: float | None = None
    """Server only: queries/s that are sent; None: half of what is measured before the test."""

    @property
    def weights(self) -> str:
        """Tags of the `weights` dep. Points that have them in common run the same file."""
        return self.network.tags(self.batch)

    def __str__(self) -> str:
        words = [str(self.network), self.scenario, f"batch {self.batch}"]
        if self.samples_per_query not in (None, self.batch):
            words.append(f"{self.samples_per_query} samples per query")
        if self.target_qps is not None:
            words.append(f"{self.target_qps:g} queries/s")
        return ", ".join(words)


@dataclass(frozen=True)
class PlannedRun:
    """One `ck benchmark` that records into the sweep's experiment entry."""

    id: str
    """A digest of the run's configuration, and `.rN`; the record carries it as CK_EXPLORE_RUN."""
    point: Point
    repetition: int
    """From 1."""
    mode: str
    """PerformanceOnly or AccuracyOnly."""
    program: str
    environment: Mapping[str, str]
    """The CK_ variables that the command sets, CK_EXPLORE_RUN among them."""
    argv: tuple[str, ...]
    """The command; its first word is `ck`, by name, to be found where it is executed."""

    @property
    def description(self) -> str:
        """What it runs, in a few words."""
        what = "accuracy" if self.mode == ACCURACY else f"repetition {self.repetition}"
        return f"{self.point}, {what}"


@dataclass(frozen=True)
class Failure:
    """A run that left no record. Kept in the entry as failed-ID.json."""

    explore_run: str
    start: str
    """ISO 8601, UTC."""
    wall_s: float
    exit_code: int
    """Negative: the signal that ended it."""
    error: str
    """The program's own last words."""
    program: str
    environment: Mapping[str, str]
    weights: str
    command: tuple[str, ...]

    def to_json(self) -> str:
        """The content of the file."""
        return json.dumps({"format": FAILURE_FORMAT, **asdict(self)}, indent=2) + "\n"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with a record, which is in the entry by then, or with a failure."""

    run: PlannedRun
    wall_s: float
    """Of the whole command."""
    record: Mapping[str, Any] | None = None
    failure: Failure | None = None


class Watcher(Protocol):
    """Who is told how runs go on."""

    def started(self, run: PlannedRun) -> None:
        """The run's command was started."""

    def ended(self, outcome: Outcome) -> None:
        """The run has ended; whoever listens keeps the failure, where there is one."""


class Executor(Protocol):
    """What carries out planned runs."""

    def run(self, runs: Sequence[PlannedRun], watcher: Watcher) -> None:
        """Carry out all runs, none twice. A failed run is an outcome, and the others go on.

        On return each run was reported as ended, once. KeyboardInterrupt passes through, after
        the runs in flight were ended; those are not reported and leave nothing that counts.
        """


def plan_run(
    point: Point,
    repetition: int,
    mode: str,
    program: str,
    environment: Mapping[str, str],
    entry: str,
    tags: Sequence[str],
) -> PlannedRun:
    """The run of a point, with its id and command.

    environment: CK_ variables that hold for all points (count, duration, conf file...). entry: the
    name of the experiment entry in CK's local repository, tags: the entry's.
    """
    own = dict(environment)
    own |= {
        "CK_LOADGEN_MODE": mode,
        "CK_LOADGEN_SCENARIO": point.scenario,
        "CK_BATCH_SIZE": str(point.batch),
    }
    if point.samples_per_query is not None:
        own["CK_LOADGEN_MULTISTREAMNESS"] = str(point.samples_per_query)
    if point.target_qps is not None:
        own["CK_LOADGEN_TARGET_QPS"] = f"{point.target_qps:.12g}"
    configuration = json.dumps([program, point.weights, own], sort_keys=True)
    digest = hashlib.sha256(configuration.encode()).hexdigest()[:12]
    own[EXPLORE_RUN] = f"{digest}.r{repetition}"
    argv = ["ck", "benchmark", f"program:{program}", "--repetitions=1"]
    argv += [f"--env.{name}={own[name]}" for name in sorted(own)]
    argv += [
        f"--dep_add_tags.weights={point.weights}",
        "--record",
        "--record_repo=local",
        f"--record_uoa={entry}",
        f"--tags={','.join(tags)}",
        "--skip_print_timers",
        "--skip_stat_analysis",
        "--process_multi_keys",
        "--sleep=0",
        "--quiet",
    ]
    return PlannedRun(own[EXPLORE_RUN], point, repetition, mode, program, own, tuple(argv))
