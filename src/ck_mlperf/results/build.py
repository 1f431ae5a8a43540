"""Build and write the record of a finished test."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from ck_mlperf.common.files import hash_file, write_file
from ck_mlperf.images.originals import ARCHIVE_SHA256
from ck_mlperf.loadgen.job import LOG_NAMES, USER_CONF
from ck_mlperf.loadgen.settings import VARIABLES, RunSettings
from ck_mlperf.machine.disturbances import describe_clock_step
from ck_mlperf.machine.facts import Conditions, Environment
from ck_mlperf.results import record as parts
from ck_mlperf.results.advice import advise_loadgen, count_needed_queries
from ck_mlperf.results.logs import LoadgenResult, Performance
from ck_mlperf.results.rules import judge, load_rules
from ck_mlperf.results.verdicts import InterfaceName, LoadgenVerdict, Verdicts

if TYPE_CHECKING:
    from ck_mlperf.loadgen.engines.base import Engine
    from ck_mlperf.loadgen.one_test import DeviceCounts, RunOutcome
    from ck_mlperf.models.recipe import ModelRecipe

# loadgen.cc, RunPerformanceMode: "PerfClock and system_clock differ by more than 1%!" is an error.
_MOST_CLOCK_STEP = 0.01


def build_record(
    *,
    program: str,
    outcome: RunOutcome,
    result: LoadgenResult,
    accuracy: parts.Accuracy | None,
    engine: parts.Engine,
    model: parts.Model,
    dataset: parts.Dataset,
    environment: Mapping[str, Any],
    deps: Sequence[Mapping[str, Any]],
    start: datetime,
    passed: Mapping[str, str],
    run_id: str | None = None,
) -> parts.Record:
    """The record of a finished test.

    program: its name. result: `logs.read_result`. accuracy: None where it was not measured.
    engine, model, dataset: `describe_engine`, `describe_model`, `describe_dataset`; the engine's
    part gets `devices` from the outcome. environment: `environment.describe_environment`.
    deps: what CK resolved. start: when the test began, with a time zone. passed: variables that
    the user passed on to the program. run_id: of a run that CK started.
    """
    conditions = msgspec.convert(outcome.conditions, Conditions)
    result = _judge_clock(result, conditions.clock_step_s or 0.0)
    performance = result.performance
    return parts.Record(
        schema_version=parts.SCHEMA_VERSION,
        program=program,
        scenario=result.scenario,
        mode=result.mode,
        accuracy=accuracy,
        counts=performance.counts if performance else None,
        latencies_ns=performance.latencies_ns if performance else None,
        early_stopped_ns=performance.early_stopped_ns if performance else None,
        throughput=performance.throughput if performance else None,
        verdicts=Verdicts(
            loadgen=_describe_verdict(result, outcome),
            rules_version=load_rules()["version"],
            rules=judge(result, accuracy, dataset, model, engine),
        ),
        settings=parts.Settings(
            ours=_list_settings(outcome.settings),
            loadgen=outcome.loadgen_settings,
            user_conf=_describe_user_conf(outcome),
            passed=dict(passed),
        ),
        engine=msgspec.structs.replace(engine, devices=_list_devices(outcome.devices, performance)),
        model=model,
        dataset=dataset,
        environment=msgspec.convert(environment, Environment),
        conditions=conditions,
        deps=msgspec.convert(deps, list[parts.Dep]),
        logs=[
            parts.Log(file=path.name, sha256=hash_file(path), bytes=path.stat().st_size)
            for path in (outcome.log_dir / name for name in LOG_NAMES)
        ],
        timing=parts.Timing(
            start=start.astimezone(timezone.utc).isoformat(timespec="seconds"),
            wall_s=outcome.wall_s,
            performance_s=performance.duration_s if performance else None,
        ),
        run_id=run_id,
    )


def write_record(record: parts.Record, path: Path) -> None:
    """Write the record to `path` atomically.

    Raises ValueError where a figure is not a number, which JSON cannot represent.
    """
    plain = msgspec.to_builtins(record)
    write_file(path, json.dumps(plain, indent=2, allow_nan=False) + "\n")


def describe_engine(engines: Sequence[Engine], batch: int) -> parts.Engine:
    """The record's part on engines that were opened, one for each device.

    batch: the most samples that one got at once.
    """
    counts = Counter(engine.device for engine in engines)
    return parts.Engine(
        name=engines[0].name,
        version=engines[0].version,
        device=", ".join(
            device if count == 1 else f"{count} x {device}" for device, count in counts.items()
        ),
        batch=batch,
        devices=None,
        options=dict(engines[0].options),
    )


def describe_model(recipe: ModelRecipe, sha256: str, precision: str) -> parts.Model:
    """The record's part on a model.

    sha256: of the file that the engine read. precision: what it computes in, one of PRECISIONS.
    """
    known = load_rules()["model"]
    conversion = recipe.conversion or {}
    calibration = conversion.get("calibration") or {}
    urls = {file["md5"]: file["url"] for file in known["files"]}
    lists = {one["list_sha256"]: one["title"] for one in known["calibration_lists"]}
    return parts.Model(
        name=recipe.name,
        weights=cast(parts.Weights, recipe.weights),
        sha256=sha256,
        recipe=recipe.to_dict(),
        # A published file is known by its md5, whatever its exporter made of the graph.
        network=known["network"] if recipe.source_md5 in urls else recipe.network,
        source=parts.WeightsSource(
            sha256=conversion.get("source_sha256") if conversion else sha256,
            md5=recipe.source_md5,
            url=urls.get(recipe.source_md5),
        ),
        calibration_list=lists.get(calibration.get("source_list_sha256")),
        precision=cast(parts.Precision, precision),
    )


def describe_dataset(manifest: Mapping[str, Any], used: int) -> parts.Dataset:
    """The record's part on a preprocessed data set. used: how many of its images, from the first.

    manifest: `PreprocessedSet.manifest`.
    """
    files_sha256 = None
    if "source_state_sha256" in manifest:  # else it is not of contents
        files_sha256 = manifest["source_files_sha256"]
    known_by = None
    if manifest["source_list_sha256"] == load_rules()["dataset"]["list_sha256"]:
        is_original = manifest.get("source_archive_sha256") == ARCHIVE_SHA256
        known_by = "contents" if is_original else "names and labels only"
    return parts.Dataset(
        name=manifest["dataset"],
        count=manifest["count"],
        used=used,
        images_sha256=manifest["images_sha256"],
        source_list_sha256=manifest["source_list_sha256"],
        recipe=msgspec.convert(manifest["recipe"], parts.Preprocessing),
        libraries={name: manifest[name] for name in ("opencv", "pillow") if name in manifest},
        source_files_sha256=files_sha256,
        known_by=cast(parts.KnownBy | None, known_by),
    )


def _judge_clock(result: LoadgenResult, step_s: float) -> LoadgenResult:
    """The result, INVALID where the wall clock was set by too much of the test's time.

    LoadGen's own check cannot find that: it compares two clocks that are the same one, since
    libstdc++'s high_resolution_clock is its system_clock. The bound is that check's.
    """
    performance = result.performance
    if performance is None or abs(step_s) <= _MOST_CLOCK_STEP * performance.duration_s:
        return result
    reasons = [*performance.reasons, describe_clock_step(step_s)]
    invalid = msgspec.structs.replace(performance, is_valid=False, reasons=reasons)
    return msgspec.structs.replace(result, performance=invalid)


def _describe_verdict(result: LoadgenResult, outcome: RunOutcome) -> LoadgenVerdict:
    performance = result.performance
    valid = performance.is_valid if performance else None
    return LoadgenVerdict(
        version=result.version,
        revision=result.revision or None,
        interface=cast(InterfaceName, outcome.interface),
        valid=None if result.compliance and valid else valid,
        reasons=performance.reasons if performance else [],
        advice=advise_loadgen(result) if performance else [],
        errors=result.errors,
        warnings=result.warnings,
        not_met=performance.not_met if performance else None,
        needed_queries=count_needed_queries(result) if performance else None,
        compliance=result.compliance,
    )


def _list_settings(settings: RunSettings) -> dict[str, parts.Setting]:
    return {
        variable.name: parts.Setting(
            value=_to_plain(getattr(settings, variable.field)),
            origin="env" if variable.name in settings.given else "default",
        )
        for variable in VARIABLES
    }


def _to_plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    return list(value) if isinstance(value, tuple) else value


def _list_devices(
    devices: Iterable[DeviceCounts], performance: Performance | None
) -> list[parts.DeviceShare]:
    """What each device had of the work; the rates add up to the test's."""
    rate = performance.throughput.samples_per_second if performance else None
    total = sum(device.samples for device in devices)
    return [
        parts.DeviceShare(
            device=device.device,
            samples=device.samples,
            samples_per_second=rate and rate * (device.samples / total),
            batches=device.batches,
        )
        for device in devices
    ]


def _describe_user_conf(outcome: RunOutcome) -> parts.File | None:
    path = outcome.settings.conf_file
    if path is None:
        return None
    return parts.File(file=path.name, sha256=hash_file(outcome.log_dir / USER_CONF))
