"""A performance record names the accuracy record of the same model file, engine and images.

It does so when it is recorded, in the experiment in which both are. CK's hooks import this module:
it needs the standard library alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ck_mlperf.common.files import MOST_LOG_BYTES, parse_json, read_regular
from ck_mlperf.loadgen.job import ACCURACY_LOG


def name_accuracy_runs(entry: Path, point: str) -> str:
    """The JSON of a point, whose performance records have their `accuracy_run`.

    entry: the folder of the experiment entry that the point is going to be in. Of several accuracy
    records that fit, the one over the most images is named, and of those the newest. A record that
    names one stays as it is.
    """
    content = json.loads(point)
    is_changed = False
    for run in _list_runs(content):
        if run["mode"] == "PerformanceOnly" and not run.get("accuracy_run"):
            run["accuracy_run"] = _find_accuracy_run(entry, run)
            is_changed = True
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n" if is_changed else point


def _find_accuracy_run(entry: Path, performance: dict[str, Any]) -> dict[str, Any] | None:
    wanted = _identify(performance)
    found = []
    for path in entry.glob("ckp-*.0001.json"):
        try:
            text = read_regular(path, MOST_LOG_BYTES).decode("utf-8", "replace")
            # Most points are of performance runs: they need not be parsed.
            if '"top5_percent"' not in text or performance["model"]["sha256"] not in text:
                continue
            point = parse_json(text)
        except (OSError, ValueError):
            continue  # the run that is being recorded must not be lost for a damaged point
        for run in _list_runs(point):
            if run["accuracy"] and _identify(run) == wanted:
                (log,) = (log for log in run["logs"] if log["file"] == ACCURACY_LOG)
                found.append(
                    {
                        "file": path.name,
                        "start": run["timing"]["start"],
                        "log_sha256": log["sha256"],
                        "top1_percent": run["accuracy"]["top1_percent"],
                        "total": run["accuracy"]["total"],
                    }
                )
    return max(found, key=lambda run: (run["total"], run["start"]), default=None)


def _list_runs(point: Any) -> Iterator[dict[str, Any]]:
    """The records in a point, of any version; not what other programs recorded."""
    for repetition in point.get("characteristics_list", ()):
        run = repetition.get("run") if isinstance(repetition, dict) else None
        if isinstance(run, dict) and "schema_version" in run:
            yield run


def _identify(run: dict[str, Any]) -> tuple[str, ...]:
    engine = run["engine"]
    return (
        run["model"]["sha256"],
        engine["name"],
        engine["version"],
        run["dataset"]["images_sha256"],
    )
