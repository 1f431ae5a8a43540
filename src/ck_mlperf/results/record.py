"""The record of a run: all that is needed to believe its figures and to get them again.

Its shape is record.schema.json; `SCHEMA_VERSION` goes up with every change that an old reader would
not understand.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.files import hash_file, write_file
from ck_mlperf.loadgen.settings import VARIABLES, RunSettings
from ck_mlperf.results.advice import advise_loadgen
from ck_mlperf.results.logs import LoadgenResult, Message, Performance
from ck_mlperf.results.rules import judge, load_rules

if TYPE_CHECKING:
    from ck_mlperf.loadgen.engines.base import Engine
    from ck_mlperf.loadgen.one_test import DeviceCounts, RunOutcome
    from ck_mlperf.models.recipe import ModelRecipe
    from ck_mlperf.results.accuracy import Accuracy

SCHEMA_VERSION = 2


def build_record(
    *,
    program: str,
    outcome: RunOutcome,
    result: LoadgenResult,
    accuracy: Accuracy | None,
    engine: Mapping[str, Any],
    model: Mapping[str, Any],
    dataset: Mapping[str, Any],
    environment: Mapping[str, Any],
    deps: Sequence[Mapping[str, Any]],
    start: datetime,
) -> dict[str, Any]:
    """The record of a finished test, as JSON holds it.

    program: its name. result: `logs.read_result`. accuracy: None where it was not measured.
    engine, model, dataset: `describe_engine`, `describe_model`, `describe_dataset`; the engine's
    part gets `devices` from the outcome. environment: `environment.describe_environment`.
    deps: {key, tags, version, uoa} of what CK resolved.
    start: when the test began, with a time zone.
    """
    performance = result.performance
    return {
        "schema_version": SCHEMA_VERSION,
        "program": program,
        "scenario": result.scenario,
        "mode": result.mode,
        "accuracy": accuracy
        and {
            "top1_percent": accuracy.top1_percent,
            "top5_percent": accuracy.top5_percent,
            "good": accuracy.good,
            "total": accuracy.total,
        },
        "counts": performance
        and {
            "queries": performance.queries,
            "samples": performance.samples,
            "samples_per_query": performance.samples_per_query,
        },
        "latencies_ns": performance and dict(performance.latencies_ns),
        "early_stopped_ns": performance and dict(performance.early_stopped_ns),
        "throughput": performance
        and {
            "samples_per_second": performance.samples_per_second,
            "queries_per_second": performance.queries_per_second,
            "peak_qps": performance.peak_qps,
        },
        "verdicts": {
            "loadgen": {
                "version": result.version,
                "interface": outcome.interface,
                "valid": performance and performance.is_valid,
                "reasons": list(performance.reasons) if performance else [],
                "advice": advise_loadgen(result) if performance else [],
                "errors": _list_messages(result.errors),
                "warnings": _list_messages(result.warnings),
            },
            "rules_version": load_rules()["version"],
            "rules": judge(result, accuracy, dataset, model, engine),
        },
        "settings": {
            "ours": _list_settings(outcome.settings),
            "loadgen": dict(outcome.loadgen_settings),
            "user_conf": _describe_file(outcome.settings.conf_file),
        },
        "engine": {**engine, "devices": _list_devices(outcome.devices, performance)},
        "model": dict(model),
        "dataset": dict(dataset),
        "environment": dict(environment),
        "conditions": dict(outcome.conditions),
        "deps": [dict(dep) for dep in deps],
        "logs": [
            {**_describe_file(path), "bytes": path.stat().st_size}
            for path in sorted(outcome.log_dir.glob("mlperf_log_*"))
        ],
        "timing": {
            "start": start.astimezone(timezone.utc).isoformat(timespec="seconds"),
            "wall_s": outcome.wall_s,
            "performance_s": performance and performance.duration_s,
        },
    }


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Write the record so that `path` holds all of it or what it held before."""
    write_file(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def describe_engine(engines: Sequence[Engine], batch: int) -> dict[str, Any]:
    """The record's part on engines that were opened, one for each device.

    batch: the most samples that one got at once.
    """
    counts = Counter(engine.device for engine in engines)
    return {
        "name": engines[0].name,
        "version": engines[0].version,
        "device": ", ".join(
            device if count == 1 else f"{count} x {device}" for device, count in counts.items()
        ),
        "batch": batch,
    }


def describe_model(recipe: ModelRecipe, sha256: str) -> dict[str, Any]:
    """The record's part on a model. sha256: of the file that the engine read."""
    return {
        "name": recipe.name,
        "weights": recipe.weights,
        "sha256": sha256,
        "recipe": recipe.to_dict(),
    }


def describe_dataset(manifest: Mapping[str, Any], used: int) -> dict[str, Any]:
    """The record's part on a preprocessed data set. used: how many of its images, from the first.

    manifest: `PreprocessedSet.manifest`.
    """
    return {
        "name": manifest["dataset"],
        "count": manifest["count"],
        "used": used,
        "images_sha256": manifest["images_sha256"],
        "source_list_sha256": manifest["source_list_sha256"],
        "recipe": dict(manifest["recipe"]),
        "libraries": {name: manifest[name] for name in ("opencv", "pillow") if name in manifest},
    }


def _list_settings(settings: RunSettings) -> dict[str, Any]:
    listed = {}
    for variable in VARIABLES:
        value = getattr(settings, variable.field)
        listed[variable.name] = {
            "value": _to_plain(value),
            "origin": "env" if variable.name in settings.given else "default",
        }
    return listed


def _to_plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    return list(value) if isinstance(value, tuple) else value


def _list_devices(
    devices: Sequence[DeviceCounts], performance: Performance | None
) -> list[dict[str, Any]]:
    """What each device had of the work; the rates add up to the test's."""
    rate = performance and performance.samples_per_second
    total = sum(device.samples for device in devices)
    return [
        {
            "device": device.device,
            "samples": device.samples,
            "samples_per_second": rate and rate * (device.samples / total),
            "batches": device.batches,
        }
        for device in devices
    ]


def _list_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    return [{"text": message.text, "count": message.count} for message in messages]


def _describe_file(path: Path | None) -> Any:
    return path and {"file": path.name, "sha256": hash_file(path)}
