"""A recorded run as a row of the table: its columns, with types and units."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple


@dataclass(frozen=True, kw_only=True)
class Run:
    """One LoadGen test that was recorded. None: not known, not measured, or it failed.

    The fields are the table's columns, in its order; each one's docstring is its description.
    """

    experiment: str
    """Name of the CK experiment entry."""
    file: str
    """The file in the entry that holds the record (several repetitions may share one)."""
    repetition: int
    """Position of the record in its file, from 0."""
    run_id: str | None = None
    """Random; None: a run without CK, or an early record."""
    point: str | None = None
    """Id of its point, as on the page; None: the run is of no point."""
    number: int | None = None
    """Which run of its point it is, from 1, in the order in which they began."""
    explore_run: str | None = None
    """The name that `ck explore loadgen` gave the run."""
    start: datetime | None = None
    """When the test began, in UTC."""
    error: str | None = None
    """Why a run of a sweep failed; None where there is a record."""

    program: str
    scenario: str
    mode: str
    """AccuracyOnly, PerformanceOnly, SubmissionRun or FindPeakPerformance."""
    compliance: str | None = None
    """TEST01 or TEST04, which measure the system otherwise than a performance run does."""
    engine: str | None = None
    """onnxruntime-cpu, onnxruntime-cuda, tensorrt..., null."""
    engine_version: str | None = None
    device: str | None = None
    devices: int | None = None
    """How many devices shared the samples."""
    model: str | None = None
    weights: str | None = None
    """trained or random."""
    precision: str | None = None
    """fp32, tf32, fp16 or int8, as the model's tags say; fp32 where they say nothing."""
    model_sha256: str | None = None
    """Of the file that the engine read."""
    dataset: str | None = None
    images: int | None = None
    """Images used, of the data set's."""
    batch: int | None = None
    """The most samples that the engine got at once."""
    samples_per_query: int | None = None
    """None in Offline, whose one query has as many samples as fill the time."""
    target_qps: float | None = None
    """Server: arrival rate in force, in queries/s."""
    settings: str | None = None
    """Variables that the user set and that no other column has, NAME=VALUE, and a plan's tags."""
    cpu: str | None = None
    cores: int | None = None
    """Processor cores that the run might use."""
    gpu: str | None = None
    """Name of the first GPU; None on a machine without."""
    driver: str | None = None
    """Version of the GPU's driver."""

    loadgen_valid: bool | None = None
    """LoadGen's own verdict."""
    invalid_reason: str | None = None
    """LoadGen's first reason for INVALID."""
    rules: str | None = None
    """The first set of rules that has the scenario: edge or datacenter-edge."""
    rules_met: bool | None = None
    """Whether the performance rules of that set are met."""
    unofficial: str | None = None
    """Why the rules do not speak of the run, whatever its figures; None: nothing of that kind."""
    not_closed: str | None = None
    """Why the closed division does not take the run; None: nothing of that kind was noted."""
    worst_check: str | None = None
    """Name of the check with the smallest margin in that set."""
    worst_margin: float | None = None
    """Its margin, as a share of what is required: negative where it is not met."""
    latency_bound_ms: float | None = None
    """Server: the bound in force, on the 99th percentile."""

    samples_per_second: float | None = None
    queries_per_second: float | None = None
    peak_qps: float | None = None
    """FindPeakPerformance: the highest rate within the latency bound, in queries/s."""
    queries: int | None = None
    samples: int | None = None
    latency_min_ns: float | None = None
    latency_mean_ns: float | None = None
    latency_p50_ns: float | None = None
    latency_p90_ns: float | None = None
    latency_p95_ns: float | None = None
    latency_p97_ns: float | None = None
    latency_p99_ns: float | None = None
    latency_p99_9_ns: float | None = None
    latency_max_ns: float | None = None
    early_stopped_p90_ns: float | None = None
    early_stopped_p99_ns: float | None = None
    top1_percent: float | None = None
    top5_percent: float | None = None
    performance_s: float | None = None
    """Duration of the performance test."""
    wall_s: float | None = None
    """Duration of the whole test, loading included."""
    sm_clock_mhz: float | None = None
    """Median clock of the multiprocessors while the GPU was at work; the slowest GPU's."""
    temperature_c: float | None = None
    """The highest temperature of a GPU at work."""

    loadgen_version: str | None = None
    commit: str | None = None
    """Of this repository; with a trailing + where files differed from it."""
    disturbances: tuple[str, ...] = ()
    """What the record's own readings say against the run, in words."""
    disturbance_kinds: tuple[str, ...] = ()
    """The kind of each, as in ck_mlperf.machine.disturbances: steal, gpu_heat..."""
    command: str | None
    """The command that repeats the run, for a POSIX shell; None: a name or a value in the record is
    not one that the program takes, or a shell would interpret it."""

    @property
    def label(self) -> str:
        """What tells it apart from the other runs of its point."""
        number = "" if self.number is None else f", run {self.number}"
        start = "" if self.start is None else f", {self.start:%Y-%m-%d %H:%M:%S} UTC"
        return f"{self.experiment}{number}{start}"

    @property
    def is_of_another_kind(self) -> bool:
        """Whether its throughput is not that of a performance run."""
        return self.mode == "FindPeakPerformance" or self.compliance is not None


CONFIGURATION = (
    *("program", "scenario", "engine", "engine_version", "device"),
    *("model", "weights", "precision", "model_sha256", "dataset", "images"),
    *("batch", "samples_per_query", "target_qps", "cpu", "cores", "gpu", "driver"),
)
"""The columns by which runs are repetitions of one another."""

NETWORK = ("model_sha256", "engine", "engine_version", "device", "dataset", "images")
"""The columns by which runs have the same accuracy."""


class Point(NamedTuple):
    """The runs of one configuration, in the order in which they began."""

    configuration: dict[str, Any]
    """Value by column, for each of CONFIGURATION."""
    runs: tuple[Run, ...]
    """Performance runs, at least one."""
    accuracy: Run | None
    """The newest run that measured the accuracy of the same model file on the same engine."""


@cache
def column_names() -> tuple[str, ...]:
    """The table's columns, in order."""
    return tuple(field.name for field in fields(Run))


def group_points(runs: Iterable[Run]) -> list[Point]:
    """The points that `runs` make, in the order of their first runs.

    A failed run has no point; an accuracy run, a compliance test and a FindPeakPerformance have
    none of their own.
    """
    by_configuration: dict[tuple[Any, ...], list[Run]] = {}
    accuracies: dict[tuple[Any, ...], Run] = {}
    for run in sorted(number_runs(list(runs)), key=_order_run):
        if run.number is not None:
            by_configuration.setdefault(_identify_configuration(run), []).append(run)
        if run.top1_percent is not None:
            accuracies[_identify_network(run)] = run
    return [
        Point(
            dict(zip(CONFIGURATION, key, strict=True)),
            tuple(of_point),
            accuracies.get(_identify_network(of_point[0])),
        )
        for key, of_point in by_configuration.items()
    ]


def number_runs(runs: Sequence[Run]) -> list[Run]:
    """The same runs in the same order, each with its point and its number in that."""
    numbered = list(runs)
    ids: dict[tuple[Any, ...], str] = {}
    counts: Counter[tuple[Any, ...]] = Counter()
    for position in sorted(range(len(runs)), key=lambda position: _order_run(runs[position])):
        run = runs[position]
        point = number = None
        if run.samples_per_second is not None and not run.is_of_another_kind:
            key = _identify_configuration(run)
            if key not in ids:
                ids[key] = identify(dict(zip(CONFIGURATION, key, strict=True)))
            counts[key] += 1
            point, number = ids[key], counts[key]
        if (run.point, run.number) != (point, number):
            numbered[position] = replace(run, point=point, number=number)
    return numbered


def identify(configuration: Mapping[str, Any]) -> str:
    """The id of a point's configuration, which depends on nothing else."""
    text = json.dumps(configuration, sort_keys=True)
    return "p" + hashlib.sha256(text.encode()).hexdigest()[:12]


def _order_run(run: Run) -> tuple[bool, datetime | None]:
    return run.start is not None, run.start


def _identify_configuration(run: Run) -> tuple[Any, ...]:
    return tuple(getattr(run, name) for name in CONFIGURATION)


def _identify_network(run: Run) -> tuple[Any, ...]:
    return tuple(getattr(run, name) for name in NETWORK)
