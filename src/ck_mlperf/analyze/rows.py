"""From a record, or the note of a run that failed, to a row of the table."""

from __future__ import annotations

import re
import shlex
import typing
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ck_mlperf.analyze.runs import Run, column_names
from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.settings import VARIABLES
from ck_mlperf.machine.disturbances import find_disturbances
from ck_mlperf.results.migrate import convert, migrate

PRECISIONS = ("fp32", "tf32", "fp16", "int8")
EXPLORE_RUN = "CK_EXPLORE_RUN"
FAILURE_FORMAT = 1

# Tags that CK puts on an env entry itself: the host, and the entry's version. As a request they
# would ask for that version on that host.
_CK_TAG = re.compile(r"(host|target)-os-.*|\d+bits|v\d+(\.\w+)*|tmp")
_FIRST_IMAGES = re.compile(r"first\.\d+")
# ONNX Runtime runs the same file on the GPU where the request has this tag; no entry has it.
_ON_GPU = {"onnxruntime-cuda": "device.cuda"}
# CK gives the program its own file where the user gives none; the record has a file's name alone.
_IMPLIED = (("CK_LOADGEN_CONF_FILE", "user.conf"),)
_SHAPE_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_NUMBERS = (int, float)
_TOO_LARGE = 2**53  # from here on a float does not hold every integer
# Points are divided by these, and drawn on scales that have no zero.
_POSITIVE = (
    *("batch", "samples_per_query", "target_qps", "samples_per_second", "queries", "samples"),
    *(name for name in column_names() if name.startswith("latency_")),
)
_PERFORMANCE = {"met": True, "not met": False, "not measured": None}
_DEFAULTS = {variable.name: variable.default for variable in VARIABLES}


def make_run(record: Mapping[str, Any], experiment: str, file: str, repetition: int) -> Run:
    """The row of a record of any version.

    Raises UserError, which says what is wrong and not in which file, where it is no record.
    """
    current = convert(record)
    try:
        run = _take_columns(current, experiment, file, repetition)
        check_types(run)
        _check_positive(run)
    except _SHAPE_ERRORS as error:
        # It looks at every part, which takes longer than all the rest: it is asked what is wrong
        # only where a part that is needed turns out not to be there.
        migrate(record)
        raise UserError(f"no record of a run: {type(error).__name__}: {error}") from error
    return run


def make_failed_run(failure: Mapping[str, Any], experiment: str, file: str) -> Run:
    """The row of a run of a sweep that failed, of the note that `ck explore loadgen` wrote.

    Raises UserError, which does not say in which file, where it is no such note.
    """
    if failure.get("format") != FAILURE_FORMAT:
        raise UserError(f"no note of a failed run: want format {FAILURE_FORMAT}")
    try:
        run = _take_failure(failure, experiment, file)
        check_types(run)
    except _SHAPE_ERRORS as error:
        raise UserError(f"no note of a failed run: {type(error).__name__}: {error}") from error
    return run


def check_types(run: Run) -> None:
    """Raise TypeError where a column holds what it is not declared to hold.

    Raises ValueError for a figure that is no number, or too large.
    """
    for name, types in _COLUMN_TYPES:
        value = getattr(run, name)
        if type(value) not in types:
            raise TypeError(f"{name} is {value!r}")
        if type(value) in _NUMBERS and not -_TOO_LARGE < value < _TOO_LARGE:  # nan, too
            raise ValueError(f"{name} is {value!r}")


def _check_positive(run: Run) -> None:
    for name in _POSITIVE:
        value = getattr(run, name)
        if value is not None and value <= 0:
            raise ValueError(f"{name} is {value!r}")


def make_command(
    program: str, environment: Mapping[str, str], weights: Collection[str], images: str | None
) -> str:
    """The command that makes a run again.

    environment: CK_ variables. weights: the model's tags. images: a tag of the images.
    """
    words = ["ck", "benchmark", f"program:{program}", "--repetitions=1"]
    words += [f"--env.{name}={environment[name]}" for name in sorted(environment)]
    if weights:
        words.append(f"--dep_add_tags.weights={','.join(sorted(weights))}")
    if images:
        words.append(f"--dep_add_tags.images={images}")
    return shlex.join([*words, "--skip_print_timers"])


def find_precision(weights: Collection[str]) -> str:
    """What the tags of a model say of its precision."""
    return next((name for name in PRECISIONS if name in weights), PRECISIONS[0])


def _take_columns(record: Mapping[str, Any], experiment: str, file: str, repetition: int) -> Run:
    ours, loadgen = record["settings"]["ours"], record["settings"]["loadgen"]
    verdict, rules = record["verdicts"]["loadgen"], record["verdicts"]["rules"][0]
    engine, model, dataset = record["engine"], record["model"], record["dataset"]
    environment, timing = record["environment"], record["timing"]
    scenario = record["scenario"]
    tags = {dep["key"]: dep["tags"] for dep in record["deps"]}
    accuracy, counts = record["accuracy"] or {}, record["counts"] or {}
    throughput, latencies = record["throughput"] or {}, record["latencies_ns"] or {}
    early_stopped = record["early_stopped_ns"] or {}
    gpu = environment["gpus"][0] if environment["gpus"] else {}
    is_server = scenario == "Server"
    disturbances = find_disturbances(record)
    margins = [check for check in rules["checks"] if check["margin"] is not None]
    worst: Mapping[str, Any] = min(margins, key=lambda check: check["margin"], default={})
    return Run(
        experiment=experiment,
        file=file,
        repetition=repetition,
        explore_run=ours[EXPLORE_RUN]["value"],
        start=_read_time(timing["start"]),
        error=None,
        program=record["program"],
        scenario=scenario,
        mode=record["mode"],
        engine=engine["name"],
        engine_version=engine["version"],
        device=engine["device"],
        devices=None if engine["devices"] is None else len(engine["devices"]),
        model=model["name"],
        weights=model["weights"],
        precision=find_precision(tags["weights"]) if "weights" in tags else None,
        model_sha256=model["sha256"],
        dataset=dataset["name"],
        images=dataset["used"],
        batch=engine["batch"],
        samples_per_query=_count_samples_per_query(scenario, loadgen),
        target_qps=loadgen["server_target_qps"] if is_server else None,
        cpu=environment["cpu"]["model"],
        cores=environment["cpu"]["cores_usable"],
        gpu=gpu.get("name"),
        driver=gpu.get("driver"),
        loadgen_valid=verdict["valid"],
        invalid_reason=next(iter(verdict["reasons"]), None),
        rules=rules["id"],
        rules_met=_PERFORMANCE[rules["performance"]],
        unofficial="; ".join(rules["unofficial"]) or None,
        worst_check=worst.get("name"),
        worst_margin=worst.get("margin"),
        latency_bound_ms=loadgen["server_target_latency_ns"] / 1e6 if is_server else None,
        samples_per_second=throughput.get("samples_per_second"),
        queries_per_second=throughput.get("queries_per_second"),
        peak_qps=throughput.get("peak_qps"),
        queries=counts.get("queries"),
        samples=counts.get("samples"),
        latency_min_ns=latencies.get("min"),
        latency_mean_ns=latencies.get("mean"),
        latency_p50_ns=latencies.get("p50"),
        latency_p90_ns=latencies.get("p90"),
        latency_p95_ns=latencies.get("p95"),
        latency_p97_ns=latencies.get("p97"),
        latency_p99_ns=latencies.get("p99"),
        latency_p99_9_ns=latencies.get("p99_9"),
        latency_max_ns=latencies.get("max"),
        early_stopped_p90_ns=early_stopped.get("p90"),
        early_stopped_p99_ns=early_stopped.get("p99"),
        top1_percent=accuracy.get("top1_percent"),
        top5_percent=accuracy.get("top5_percent"),
        performance_s=timing["performance_s"],
        wall_s=timing["wall_s"],
        sm_clock_mhz=_find_extreme(record, "sm_clock_mhz", "median", min),
        temperature_c=_find_extreme(record, "temperature_c", "max", max),
        loadgen_version=verdict["version"],
        commit=_describe_commit(environment["repository"]),
        disturbances=tuple(disturbance.text for disturbance in disturbances),
        disturbance_kinds=tuple(disturbance.kind for disturbance in disturbances),
        command=make_command(
            record["program"],
            {
                name: _format_value(setting["value"])
                for name, setting in ours.items()
                if setting["origin"] == "env" and (name, setting["value"]) not in _IMPLIED
                if name != EXPLORE_RUN
            },
            _request_weights(tags.get("weights", ()), engine["name"]),
            next((tag for tag in tags.get("images", ()) if _FIRST_IMAGES.fullmatch(tag)), None),
        ),
    )


def _take_failure(failure: Mapping[str, Any], experiment: str, file: str) -> Run:
    environment, weights = failure["environment"], failure["weights"].split(",")
    blank: dict[str, Any] = dict.fromkeys(name for name, _ in _COLUMN_TYPES)
    batch = environment.get("CK_BATCH_SIZE")
    samples = environment.get("CK_LOADGEN_MULTISTREAMNESS")
    qps = environment.get("CK_LOADGEN_TARGET_QPS")
    known = dict(
        experiment=experiment,
        file=file,
        repetition=0,
        explore_run=failure["explore_run"],
        start=_read_time(failure["start"]),
        error=failure["error"],
        program=failure["program"],
        scenario=environment.get("CK_LOADGEN_SCENARIO", _DEFAULTS["CK_LOADGEN_SCENARIO"]),
        mode=environment.get("CK_LOADGEN_MODE", _DEFAULTS["CK_LOADGEN_MODE"]),
        precision=find_precision(weights),
        batch=None if batch is None else int(batch),
        samples_per_query=None if samples is None else int(samples),
        target_qps=None if qps is None else float(qps),
        wall_s=failure["wall_s"],
        disturbances=(),
        disturbance_kinds=(),
        command=make_command(
            failure["program"],
            {name: environment[name] for name in environment if name != EXPLORE_RUN},
            [tag for tag in weights if tag],
            None,
        ),
    )
    return Run(**(blank | known))


def _read_time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return time.astimezone(timezone.utc)


def _count_samples_per_query(scenario: str, loadgen: Mapping[str, Any]) -> int | None:
    """None in Offline: its one query has as many samples as fill the time, each run others."""
    if scenario == "MultiStream":
        return loadgen["multi_stream_samples_per_query"]  # type: ignore[no-any-return]
    return None if scenario == "Offline" else 1


def _find_extreme(record: Mapping[str, Any], reading: str, figure: str, choose: Any) -> Any:
    """A figure of the readings of all GPUs, the one that `choose` takes; None: not known."""
    gpus = (record["conditions"] or {}).get("gpus", ())
    return choose((gpu[reading][figure] for gpu in gpus if gpu[reading]), default=None)


def _describe_commit(repository: Mapping[str, Any] | None) -> str | None:
    if repository is None or repository["commit"] is None:
        return None
    return f"{repository['commit']}{'' if repository['clean'] else '+'}"


def _request_weights(tags: Sequence[str], engine: str) -> list[str]:
    request = [tag for tag in tags if not _CK_TAG.fullmatch(tag)]
    return [*request, _ON_GPU[engine]] if engine in _ON_GPU else request


def _format_value(value: Any) -> str:
    """A setting as the environment has it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)


def _list_column_types() -> list[tuple[str, frozenset[type]]]:
    """The types that each column takes: exactly these, for a bool is an int too."""
    columns = []
    for name, hint in typing.get_type_hints(Run).items():
        types = {typing.get_origin(part) or part for part in typing.get_args(hint) or (hint,)}
        if typing.get_origin(hint) is tuple:
            types = {tuple}
        if float in types:
            types.add(int)
        columns.append((name, frozenset(types)))
    return columns


_COLUMN_TYPES = _list_column_types()
