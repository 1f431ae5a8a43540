"""Recorded runs of a submission, made of the real logs in test/data/submission; altered copies.

The logs are of seconds (make_submission_logs.py). What a submission wants of them is altered here:
the duration that was asked for, the scenario of the accuracy log, the network that ran. Nothing
made here is a result.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ck_mlperf.results.kept_logs import keep_content
from ck_mlperf.results.rules import load_rules
from ck_mlperf.submission.runs import choose_runs, infer_scenarios, read_recorded_runs
from ck_mlperf.submission.tree import Submission, write_submission

from .records import make_json

LOGS = Path(__file__).resolve().parents[1] / "data" / "submission" / "logs.tar.xz"
EDGE = ("SingleStream", "MultiStream", "Offline")
KINDS = ("performance", "accuracy", "TEST01", "TEST04")
SYSTEM = {
    "system_name": "Altered logs, no system",
    "status": "rdi",
    "system_type": "edge",
    "system_type_detail": "",
    "number_of_nodes": "1",
    "host_processor_model_name": "none",
    "host_processors_per_node": "1",
    "host_processor_core_count": "2",
    "host_memory_capacity": "8 GiB",
    "host_storage_capacity": "1 TB",
    "host_storage_type": "SSD",
    "host_processor_frequency": "",
    "host_processor_caches": "",
    "host_memory_configuration": "1x 8 GiB",
    "host_processor_interconnect": "",
    "host_networking": "Ethernet",
    "host_network_card_count": "1",
    "host_networking_topology": "N/A",
    "accelerators_per_node": "0",
    "accelerator_model_name": "N/A",
    "accelerator_memory_capacity": "N/A",
    "accelerator_frequency": "N/A",
    "accelerator_host_interconnect": "N/A",
    "accelerator_interconnect": "N/A",
    "accelerator_interconnect_topology": "N/A",
    "accelerator_memory_configuration": "N/A",
    "accelerator_on-chip_memories": "N/A",
    "cooling": "air",
    "framework": "none",
    "operating_system": "Linux",
    "other_software_stack": "LoadGen 6.0.17",
    "hw_notes": "",
    "sw_notes": "",
}
SOURCE = {key: load_rules()["model"]["files"][0][key] for key in ("md5", "url")}
# The accuracy that the altered records have, above what closed wants.
ACCURACY = {"top1_percent": 76.456, "top5_percent": None, "good": 38228, "total": 50_000}


@functools.cache
def read_logs() -> Mapping[tuple[str, str], Mapping[str, bytes]]:
    """LoadGen's logs as they were written: by (scenario, kind), then by name."""
    logs: dict[tuple[str, str], dict[str, bytes]] = defaultdict(dict)
    with tarfile.open(LOGS) as archive:
        for member in archive:
            scenario, kind, name = member.name.split("/")
            file = archive.extractfile(member)
            assert file is not None
            logs[scenario, kind][name] = file.read()
    return logs


@functools.cache
def alter_logs(scenario: str, kind: str, duration_ms: int = 600_000) -> Mapping[str, bytes]:
    """The logs of a run, altered to say that a duration of 600 s was asked for."""
    logs = dict(read_logs()["Offline" if kind == "accuracy" else scenario, kind])
    detail = logs["mlperf_log_detail.txt"]
    if kind == "accuracy":
        detail = set_value(detail, "effective_scenario", scenario)
        detail = set_value(detail, "requested_scenario", scenario)
    else:
        detail = set_value(detail, "effective_min_duration_ms", duration_ms)
        detail = set_value(detail, "requested_min_duration_ms", duration_ms)
        summary = logs["mlperf_log_summary.txt"]
        logs["mlperf_log_summary.txt"] = re.sub(
            rb"(min_duration \(ms\): )\d+", rb"\g<1>%d" % duration_ms, summary
        )
    if scenario == "MultiStream" and kind.startswith("TEST"):
        # On a busy machine the 99th percentile is never the same twice.
        reference = read_logs()[scenario, "performance"]
        key = "early_stopping_latency_ms"
        score = get_value(reference["mlperf_log_detail.txt"], key)
        detail = set_value(detail, key, score)
        logs["mlperf_log_summary.txt"] = re.sub(
            rb"(Early stopping 99th percentile estimate: )\d+",
            rb"\g<1>%d" % score,
            logs["mlperf_log_summary.txt"],
        )
    logs["mlperf_log_detail.txt"] = detail
    logs.setdefault("mlperf_log_accuracy.json", b"[\n]\n")  # as LoadGen leaves it
    return logs


def get_value(detail: bytes, key: str) -> Any:
    """The first value of a key in a detail log."""
    line = next(line for line in detail.splitlines() if b'"key": "%s"' % key.encode() in line)
    return json.loads(line.removeprefix(b":::MLLOG "))["value"]


def set_value(detail: bytes, key: str, value: Any) -> bytes:
    """A detail log with another value of a key."""
    pattern = rb'("key": "%s", "value": )("[^"]*"|[^,]+)' % key.encode()
    altered, count = re.subn(pattern, lambda m: m[1] + json.dumps(value).encode(), detail)
    assert count, key
    return altered


def save_run(entry: Path, scenario: str, kind: str, number: int = 0, **changes: Any) -> None:
    """Record a run in the folder of an experiment entry, with its logs.

    number: of later runs it is larger. changes: of the record, as `make_json` takes them; `logs`,
    other logs; and `reasons`, why the rules do not speak of it.
    """
    logs = changes.pop("logs", None) or alter_logs(scenario, kind)
    reasons = changes.pop("reasons", [])
    entry.mkdir(parents=True, exist_ok=True)
    listed = []
    for name, content in logs.items():
        sha256 = hashlib.sha256(content).hexdigest()
        keep_content(entry, content, sha256, name)
        listed.append({"file": name, "sha256": sha256, "bytes": len(content)})
    is_accuracy = kind == "accuracy"
    duration_ms = get_value(logs["mlperf_log_detail.txt"], "effective_min_duration_ms")
    plain = make_json()
    rules = plain["verdicts"]["rules"][0]
    test = kind if kind.startswith("TEST") else None
    record = make_json(
        scenario=scenario,
        mode="AccuracyOnly" if is_accuracy else "PerformanceOnly",
        accuracy=ACCURACY if is_accuracy else None,
        verdicts={
            "loadgen": {
                "valid": True if kind == "performance" else None,
                "reasons": [],
                "compliance": test,
            },
            "rules": [{**rules, "unofficial": reasons}],
        },
        settings={
            "ours": {"CK_LOADGEN_COMPLIANCE": {"value": test, "origin": "env"}},
            "loadgen": {"min_duration_ms": duration_ms},
        },
        model={
            "name": "resnet50",
            "recipe": {"conversion": None},
            "network": "resnet50-v1.5",
            "source": {"sha256": "a" * 64, **SOURCE},
        },
        dataset={"name": "imagenet", "count": 50_000, "used": 50_000},
        logs=listed,
        timing={"start": f"2026-03-01T10:{number:02}:00+00:00"},
    )
    changed = make_json_from(record, changes)
    name = hashlib.sha256(f"{scenario} {kind} {number}".encode()).hexdigest()[:16]
    point = {"characteristics_list": [{"run": changed}]}
    (entry / f"ckp-{name}.0001.json").write_text(json.dumps(point))


def make_json_from(record: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A record with changes: parts within parts."""
    changed = dict(record)
    for name, part in changes.items():
        old = changed.get(name)
        is_part = isinstance(part, Mapping) and isinstance(old, Mapping)
        changed[name] = make_json_from(old, part) if is_part else part
    return changed


def save_runs(
    repository: Path,
    experiment: str = "submission",
    scenarios: Iterable[str] = EDGE,
    kinds: Iterable[str] = KINDS,
    **changes: Any,
) -> Path:
    """Record runs of all that a submission needs. Returns the folder of the experiment entry."""
    entry = repository / "experiment" / experiment
    for scenario in scenarios:
        for kind in kinds:
            save_run(entry, scenario, kind, **changes)
    return entry


def write_tree(
    folder: Path,
    repository: Path,
    division: str = "closed",
    scenarios: Iterable[str] = EDGE,
    infer: Iterable[str] = (),
    **system: str,
) -> Path:
    """The tree that the product writes of such runs, by Acme. Returns the folder of its results.

    folder: gets closed/ or open/.
    """
    save_runs(repository, "written", scenarios)
    chosen = choose_runs(read_recorded_runs([repository], ["written"]), division)
    infer_scenarios(chosen, infer)
    write_submission(Submission(division, "Acme", SYSTEM | system, chosen), folder)
    return folder / division / "Acme" / "results" / "Altered_logs_no_system" / "resnet50"
