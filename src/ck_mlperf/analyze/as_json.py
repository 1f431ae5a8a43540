"""What `ck analyze loadgen --json` prints; docs/ci.md describes the layout.

VERSION goes up with a change that a reader of the one before would not understand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from ck_mlperf.analyze import points
from ck_mlperf.analyze.flags import find_flags
from ck_mlperf.analyze.runs import Point, Run, group_points

VERSION = 1


def print_json(kind: str, content: Mapping[str, Any]) -> None:
    """Print a document. kind: analysis, answer, comparison or history."""
    document = {"format": f"ck-mlperf.{kind}", "version": VERSION, **content}
    print(json.dumps(document, indent=2, default=_convert))


def describe_runs(runs: Sequence[Run], passed_over: Sequence[str]) -> dict[str, Any]:
    """The points with their runs, and the runs that have none."""
    return {
        "points": [_describe_point(point) for point in group_points(runs)],
        "other_runs": [asdict(run) for run in runs if run.number is None],
        "passed_over": list(passed_over),
    }


def describe_answer(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """What a query gave. JSON has no infinities and no NaN: these are null."""
    return {"columns": columns, "rows": [[_limit(cell) for cell in row] for row in rows]}


def _limit(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _describe_point(point: Point) -> dict[str, Any]:
    latency = points.measure_latency(point)
    return {
        "id": points.identify_point(point),
        "configuration": point.configuration,
        "samples_per_second": points.measure_throughput(point)._asdict(),
        "latency_ms": latency
        and {
            **latency.ms._asdict(),
            "percentile": latency.percentile,
            "early_stopped": latency.is_early_stopped,
        },
        "loadgen_verdict": points.judge_point(point),
        "top1_percent": point.accuracy and point.accuracy.top1_percent,
        "doubts": [flag._asdict() for flag in find_flags(point)],
        "runs": [asdict(run) for run in point.runs],
    }


def _convert(value: Any) -> Any:
    """What DuckDB and the table have, and JSON has not."""
    return value.isoformat() if isinstance(value, datetime) else str(value)
