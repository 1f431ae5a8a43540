"""From records, and the notes of runs that failed, to rows of the table."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ck_mlperf.analyze.runs import Run, column_names, number_runs
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.printable import make_printable
from ck_mlperf.loadgen.settings import COMPLIANCE, VARIABLES
from ck_mlperf.machine.facts import Repository
from ck_mlperf.models.precisions import find_precision
from ck_mlperf.results.experiments import (
    ExperimentFile,
    Failure,
    find_files,
    read_failure,
    read_repetitions,
)
from ck_mlperf.results.record import Record
from ck_mlperf.results.repeat import list_given, repeat_failure, repeat_run

_TOO_LARGE = 2**53  # from here on a float does not hold every integer
# Points are divided by these, and drawn on scales that have no zero; what is less than _LEAST no
# machine measures, and its inverse is too large.
_LEAST = 1e-9
_POSITIVE = (
    *("samples_per_second", "queries_per_second", "samples_per_query", "target_qps"),
    "latency_bound_ms",
    *(name for name in column_names() if name.startswith("latency_")),
)
_PERFORMANCE = {"met": True, "not met": False, "not measured": None}
_DEFAULTS = {variable.name: variable.default for variable in VARIABLES}

# Variables that are columns, or change nothing that is measured.
_IN_COLUMNS = {
    *("CK_LOADGEN_SCENARIO", "CK_LOADGEN_MODE", "CK_LOADGEN_MULTISTREAMNESS", "CK_BATCH_SIZE"),
    *("CK_LOADGEN_TARGET_QPS", "CK_LOADGEN_DATASET_SIZE", COMPLIANCE),
    *("CK_SILENT_MODE", "CK_VERBOSE", "CK_TIMEOUT"),
}
_PLAN_TAGS = ("input.", "maxbatch.", "output.")


class Reading(NamedTuple):
    """What experiments hold, each record judged by itself."""

    runs: list[Run]
    passed_over: list[str]
    """What could not be read, a sentence each, which names the file."""
    foreign: int = 0
    """Files of other programs."""


def read_runs(repositories: Iterable[Path], patterns: Sequence[str] = ()) -> list[Run]:
    """The runs in the experiment entries of CK repositories, in the order of names and files.

    Arguments and errors as of `experiments.find_files`. What cannot be read is named on stderr;
    files of other programs are counted there.
    """
    return read_experiments(repositories, patterns).runs


def read_experiments(repositories: Iterable[Path], patterns: Sequence[str] = ()) -> Reading:
    """As `read_runs`, with what was passed over."""
    readings = [read_file(file) for file in find_files(repositories, patterns)]
    passed_over = [text for reading in readings for text in reading.passed_over]
    foreign = sum(reading.foreign for reading in readings)
    for text in passed_over:
        print(make_printable(f"passed over: {text}"), file=sys.stderr)
    if passed_over:
        count = len(passed_over)
        records = "1 record was" if count == 1 else f"{count} records were"
        print(f"{records} passed over, which could not be read", file=sys.stderr)
    if foreign:
        files = "1 file was" if foreign == 1 else f"{foreign} files were"
        print(f"{files} passed over, of other programs", file=sys.stderr)
    runs = number_runs([run for reading in readings for run in reading.runs])
    return Reading(runs, passed_over, foreign)


def read_file(file: ExperimentFile) -> Reading:
    """The runs in a file. Another program's has none, and counts as foreign."""
    try:
        if file.problem is not None:
            return Reading([], [file.problem])
        if file.is_failure:
            return Reading([make_failed_run(read_failure(file.path), file)], [])
        found = read_repetitions(file.path)
    except UserError as error:
        return Reading([], [str(error)])
    runs: list[Run] = []
    passed_over: list[str] = []
    for repetition, record in enumerate(found):
        try:
            if isinstance(record, UserError):
                raise record
            if record is not None:
                runs.append(make_run(record, file, repetition))
        except UserError as error:
            passed_over.append(str(error))
    return Reading(runs, passed_over, foreign=int(not runs and not passed_over))


def make_run(record: Record, file: ExperimentFile, repetition: int) -> Run:
    """The row of a record. Raises UserError, which names the file, where a figure cannot be."""
    try:
        run = _check_columns(_take_columns(record, file, repetition))
        for name in _POSITIVE:
            value = getattr(run, name)
            if value is not None and value < _LEAST:
                raise ValueError(f"{name} is {value!r}")
    except (UserError, ValueError, ArithmeticError) as error:
        raise UserError(f"{file.path}: not a record of a run: {error}") from error
    return run


def make_failed_run(failure: Failure, file: ExperimentFile) -> Run:
    """The row of a run of a sweep that failed.

    Raises UserError, which names the file, where the run's variables are no numbers.
    """
    try:
        run = _check_columns(_take_failure(failure, file))
    except (ValueError, ArithmeticError) as error:
        raise UserError(f"{file.path}: not a note of a failed run: {error}") from error
    return run


def _check_columns(run: Run) -> Run:
    """The run, its texts such as any output takes. Raises ValueError for a figure that cannot be.

    A folder's name and a record may have halves of surrogate pairs, which no output takes.
    """
    texts: dict[str, Any] = {}
    for name, value in vars(run).items():
        if type(value) in (int, float) and not -_TOO_LARGE < value < _TOO_LARGE:  # nan, too
            raise ValueError(f"{name} is {value!r}")
        if type(value) is str:
            texts[name] = _clean(value)
        elif type(value) is tuple:
            texts[name] = tuple(map(_clean, value))
    return replace(run, **texts)


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()


def _take_columns(record: Record, file: ExperimentFile, repetition: int) -> Run:
    engine, model, environment = record.engine, record.model, record.environment
    verdict, rules, accuracy = record.verdicts.loadgen, record.verdicts.rules[0], record.accuracy
    is_server = record.scenario == "Server"
    gpu = environment.gpus[0] if environment.gpus else None
    gpu_conditions = record.conditions.gpus if record.conditions else []
    disturbances = record.find_disturbances()
    margins = [(check.margin, check.name) for check in rules.checks if check.margin is not None]
    worst_margin, worst_check = min(margins, key=lambda pair: pair[0], default=(None, None))
    get_number = record.settings.get_loadgen_number
    return Run(
        experiment=file.experiment,
        file=file.path.name,
        repetition=repetition,
        run_id=record.run_id,
        explore_run=record.explore_run,
        start=_read_time(record.timing.start),
        program=record.program,
        scenario=record.scenario,
        mode=record.mode,
        compliance=verdict.compliance,
        engine=engine.name,
        engine_version=engine.version,
        device=engine.device,
        devices=None if engine.devices is None else len(engine.devices),
        model=model.name,
        weights=model.weights,
        precision=record.precision,
        model_sha256=model.sha256,
        dataset=record.dataset.name,
        images=record.dataset.used,
        batch=engine.batch,
        samples_per_query=_count_samples_per_query(record),
        target_qps=get_number("server_target_qps") if is_server else None,
        settings=_describe_settings(record),
        cpu=environment.cpu.model,
        cores=environment.cpu.cores_usable,
        gpu=gpu.name if gpu else None,
        driver=gpu.driver if gpu else None,
        loadgen_valid=verdict.valid,
        invalid_reason=next(iter(verdict.reasons), None),
        rules=rules.id,
        rules_met=_PERFORMANCE[rules.performance],
        unofficial="; ".join(rules.unofficial) or None,
        not_closed="; ".join(rules.not_closed or ()) or None,
        worst_check=worst_check,
        worst_margin=worst_margin,
        latency_bound_ms=get_number("server_target_latency_ns") / 1e6 if is_server else None,
        **_name_columns(record.throughput, "{}"),
        queries=record.counts.queries if record.counts else None,
        samples=record.counts.samples if record.counts else None,
        **_name_columns(record.latencies_ns, "latency_{}_ns"),
        **_name_columns(record.early_stopped_ns, "early_stopped_{}_ns"),
        top1_percent=accuracy.top1_percent if accuracy else None,
        top5_percent=accuracy.top5_percent if accuracy else None,
        performance_s=record.timing.performance_s,
        wall_s=record.timing.wall_s,
        sm_clock_mhz=min(
            (
                gpu.sm_clock_mhz.median
                for gpu in gpu_conditions
                if gpu.sm_clock_mhz and gpu.sm_clock_mhz.median >= _LEAST
            ),
            default=None,
        ),
        temperature_c=max(
            (gpu.temperature_c.max for gpu in gpu_conditions if gpu.temperature_c), default=None
        ),
        loadgen_version=verdict.version,
        commit=_describe_commit(environment.repository),
        disturbances=tuple(disturbance.text for disturbance in disturbances),
        disturbance_kinds=tuple(disturbance.kind for disturbance in disturbances),
        command=repeat_run(record),
    )


def _name_columns(part: msgspec.Struct | None, form: str) -> dict[str, Any]:
    """The columns of a part of a record; form: of a column's name."""
    if part is None:
        return {}
    return {form.format(name): value for name, value in msgspec.structs.asdict(part).items()}


def _take_failure(failure: Failure, file: ExperimentFile) -> Run:
    environment, weights = failure.environment, failure.weights.split(",")
    batch = environment.get("CK_BATCH_SIZE")
    samples = environment.get("CK_LOADGEN_MULTISTREAMNESS")
    qps = environment.get("CK_LOADGEN_TARGET_QPS")
    return Run(
        experiment=file.experiment,
        file=file.path.name,
        repetition=0,
        explore_run=failure.explore_run,
        start=_read_time(failure.start),
        error=failure.error,
        program=failure.program,
        scenario=environment.get("CK_LOADGEN_SCENARIO", _DEFAULTS["CK_LOADGEN_SCENARIO"]),
        mode=environment.get("CK_LOADGEN_MODE", _DEFAULTS["CK_LOADGEN_MODE"]),
        compliance=environment.get(COMPLIANCE),
        precision=find_precision(weights),
        batch=None if batch is None else int(batch),
        samples_per_query=None if samples is None else int(samples),
        target_qps=None if qps is None else float(qps),
        wall_s=failure.wall_s,
        command=repeat_failure(failure),
    )


def _read_time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(timezone.utc)


def _count_samples_per_query(record: Record) -> int | None:
    """None in Offline: its one query has as many samples as fill the time, each run others."""
    if record.scenario == "MultiStream":
        return int(record.settings.get_loadgen_number("multi_stream_samples_per_query"))
    return None if record.scenario == "Offline" else 1


def _describe_settings(record: Record) -> str | None:
    """What no other column says, and what a plan was asked for beside its precision."""
    given = list_given(record).items()
    settings = [f"{name}={value}" for name, value in given if name not in _IN_COLUMNS]
    tags = (dep.tags for dep in record.deps if dep.key == "weights")
    plan = [tag for tag in next(tags, []) if tag.startswith(_PLAN_TAGS)]
    return " ".join(sorted(settings) + sorted(plan)) or None


def _describe_commit(repository: Repository | None) -> str | None:
    if repository is None or repository.commit is None:
        return None
    return f"{repository.commit}{'' if repository.clean else '+'}"
