"""What a sweep or a load search runs, one `ck benchmark` each, and the outcome.

A `Configuration` is what is measured, a `ScheduledRun` the command that measures it once, an
`Outcome` the record or the failure. An `Executor` carries out scheduled runs, on this machine
(local.py) or on many (cluster.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from ck_mlperf.loadgen.engines.registry import ENGINES, PLAN
from ck_mlperf.loadgen.settings import COMPLIANCE, EXPLORE_RUN
from ck_mlperf.models.precisions import PRECISIONS

if TYPE_CHECKING:
    from ck_mlperf.results.experiments import Failure
    from ck_mlperf.results.record import Record

PERFORMANCE, ACCURACY = "PerformanceOnly", "AccuracyOnly"


@dataclass(frozen=True)
class Network:
    """A model and the engine that runs it."""

    model: str = "digits"
    """The tags that identify the model, joined with commas."""
    precision: str | None = None
    """fp32, tf32, fp16 or int8; None: as the model's file is."""
    engine: str = "onnx"
    """Its kind, as in loadgen.engines.registry."""
    weights: str | None = None
    """All tags of the `weights` dep, in place of the three above."""

    def tags(self, batch: int) -> str:
        """The tags with which a run of batches up to `batch` asks CK for the network."""
        if self.weights is not None:
            return self.weights
        engine = ENGINES[self.engine]
        words = ["model", engine.model, self.model]
        precision = self.precision
        if engine.model == PLAN:
            precision = precision or PRECISIONS[0]
        if precision:
            words += ["converted-from-onnx", precision]
        if engine.model == PLAN:
            words.append(f"maxbatch.{batch}")
        if engine.tag:
            words.append(engine.tag)
        return ",".join(words)

    @property
    def has_accuracy(self) -> bool:
        """Whether its weights are trained; the program refuses to measure random ones."""
        return "random" not in self.tags(1).split(",")

    def __str__(self) -> str:
        if self.weights is not None:
            return self.weights
        return " ".join(word for word in (self.model, self.precision, self.engine) if word)


@dataclass(frozen=True)
class Configuration:
    """A network and its load, to be measured once or several times."""

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
        """Tags of the `weights` dep. Configurations with the same tags run the same file."""
        return self.network.tags(self.batch)

    def __str__(self) -> str:
        words = [str(self.network), self.scenario, f"batch {self.batch}"]
        if self.samples_per_query not in (None, self.batch):
            words.append(f"{self.samples_per_query} samples per query")
        if self.target_qps is not None:
            words.append(f"{self.target_qps:g} queries/s")
        return ", ".join(words)


@dataclass(frozen=True)
class ScheduledRun:
    """One `ck benchmark` that records into the sweep's experiment entry."""

    id: str
    """A digest of what is run, and `.rN`; the record carries it as CK_EXPLORE_RUN."""
    configuration: Configuration
    repetition: int
    """From 1."""
    mode: str
    """PerformanceOnly or AccuracyOnly."""
    program: str
    environment: Mapping[str, str]
    """The CK_ variables that the command sets, CK_EXPLORE_RUN among them."""
    argv: tuple[str, ...]
    """The command. Its first word is `ck`, which whoever executes it looks up."""

    @property
    def measures(self) -> str:
        """accuracy, performance, or the name of a compliance test."""
        if self.mode == ACCURACY:
            return "accuracy"
        return self.environment.get(COMPLIANCE, "performance")

    @property
    def description(self) -> str:
        """The configuration and the repetition, in words."""
        words = [str(self.configuration)]
        if self.measures != "performance":
            words.append(self.measures)
        if self.measures == "performance" or self.repetition > 1:
            words.append(f"repetition {self.repetition}")
        return ", ".join(words)


@dataclass(frozen=True)
class Outcome:
    """The end of a run: a record, which is in the entry by then, or a failure."""

    run: ScheduledRun
    wall_s: float
    """Of the whole command."""
    record: Record | None = None
    failure: Failure | None = None


class Watcher(Protocol):
    """What is told about the progress of runs."""

    def started(self, run: ScheduledRun) -> None:
        """The run's command was started."""

    def ended(self, outcome: Outcome) -> None:
        """The run has ended. The watcher stores the failure, if there is one."""


class Executor(Protocol):
    """Carries out scheduled runs."""

    def run(self, runs: Sequence[ScheduledRun], watcher: Watcher) -> None:
        """Carry out all runs, each once. A failed run is an outcome, and the others go on.

        On return, each run was reported as ended, once. KeyboardInterrupt passes through after the
        runs in flight were stopped; those are not reported and leave no record.
        """


def schedule_run(
    configuration: Configuration,
    repetition: int,
    mode: str,
    program: str,
    environment: Mapping[str, str],
    entry: str,
    tags: Sequence[str],
    prefix: str = "",
    images: str | None = None,
) -> ScheduledRun:
    """The run of a configuration, with its id and command.

    environment: CK_ variables for all configurations (count, duration, conf file...). entry: the
    name of the experiment entry in CK's local repository; tags: the entry's. prefix: the id's.
    images: CK's UID of the images; None: the program finds them.
    """
    own = dict(environment)
    own |= {
        "CK_LOADGEN_MODE": mode,
        "CK_LOADGEN_SCENARIO": configuration.scenario,
        "CK_BATCH_SIZE": str(configuration.batch),
    }
    if configuration.samples_per_query is not None:
        own["CK_LOADGEN_MULTISTREAMNESS"] = str(configuration.samples_per_query)
    if configuration.target_qps is not None:
        own["CK_LOADGEN_TARGET_QPS"] = f"{configuration.target_qps:.12g}"
    parts: list[object] = [program, configuration.weights, own]
    pins = [f"--deps.images={images}"] if images else []
    text = json.dumps([*parts, *pins], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    own[EXPLORE_RUN] = f"{prefix}{digest}.r{repetition}"
    argv = ["ck", "benchmark", f"program:{program}", "--repetitions=1"]
    argv += [f"--env.{name}={own[name]}" for name in sorted(own)]
    argv += [
        f"--dep_add_tags.weights={configuration.weights}",
        *pins,
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
    return ScheduledRun(
        own[EXPLORE_RUN], configuration, repetition, mode, program, own, tuple(argv)
    )


def make_failure(
    run: ScheduledRun, start: datetime, wall_s: float, exit_code: int, error: str
) -> Outcome:
    """The outcome of a run that left no record. start: with its time zone, UTC."""
    # Here, since CK's interpreter, which parses the options of a sweep, may have no msgspec.
    from ck_mlperf.results.experiments import Failure

    failure = Failure(
        format=1,
        explore_run=run.id,
        start=start.isoformat(timespec="seconds"),
        wall_s=round(wall_s, 3),
        exit_code=exit_code,
        error=error,
        program=run.program,
        environment=dict(run.environment),
        weights=run.configuration.weights,
        command=list(run.argv),
    )
    return Outcome(run, wall_s, failure=failure)
