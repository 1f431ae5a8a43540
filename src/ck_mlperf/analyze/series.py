"""Points grouped into the series of a plot, each with the label that tells it from the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ck_mlperf.analyze.points import format_figure, load_of, name_model
from ck_mlperf.analyze.runs import Point
from ck_mlperf.common.printable import make_printable
from ck_mlperf.models.precisions import PRECISIONS

# What tells two series apart, in the order in which a legend says it.
_PARTS: dict[str, Callable[[Any], str]] = {
    "precision": str,
    "engine": str,
    "engine_version": str,
    "device": str,
    "gpu": str,
    "driver": "driver {}".format,
    "cpu": str,
    "cores": "{} cores".format,
    "batch": "batch {}".format,
    "samples_per_query": "{} samples per query".format,
    "target_qps": lambda rate: f"{format_figure(rate)} queries/s",
    "dataset": str,
    "images": "{:,} images".format,
    "model_sha256": lambda sha256: f"file {sha256[:8]}",
    "program": str,
}
_LONGEST_LABEL = 44


def split_by_model(points: Iterable[Point]) -> list[tuple[str, str, list[Point]]]:
    """(scenario, model, points) for each pair. Points without a load are left out."""
    with_load = [point for point in points if load_of(point) is not None]
    found = _group(with_load, lambda point: (point.configuration["scenario"], name_model(point)))
    return [(*key, found[key]) for key in sorted(found)]


def split_by_series(
    points: Sequence[Point], any_load: bool = False
) -> list[tuple[str, list[Point]]]:
    """(label, points in the order of the load) for each series, at most one point for each load.

    points: of one scenario. any_load: a series is all points of a network, whatever their load.
    """
    if not points:
        return []
    load = {"batch", "samples_per_query", "target_qps"}
    if points[0].configuration["scenario"] == "Server" and not any_load:
        load.remove("batch")
    names = [name for name in _PARTS if name not in load]

    def read_key(point: Point) -> tuple[Any, ...]:
        return tuple(point.configuration[name] for name in names)

    by_key = _group(points, read_key)
    if not any_load and any(len(set(map(load_of, of))) < len(of) for of in by_key.values()):
        names.append("samples_per_query")
        by_key = _group(points, read_key)
    telling = _find_telling(list(by_key)) or [names.index("engine")]
    telling = sorted({names.index("precision"), *telling})
    labelled = []
    for key, of_series in by_key.items():
        parts = [_describe_part(names[place], key[place]) for place in telling]
        of_series.sort(key=lambda point: load_of(point) or 0)
        labelled.append((shorten(", ".join(parts)), of_series))
    return sorted(labelled, key=lambda series: _order_label(series[0]))


def shorten(text: str, longest: int = _LONGEST_LABEL) -> str:
    """One line of printable characters, cut if it is too long."""
    text = make_printable(text)
    return text if len(text) <= longest else text[: longest - 1] + "\u2026"


def _group(
    points: Iterable[Point], read_key: Callable[[Point], tuple[Any, ...]]
) -> dict[tuple[Any, ...], list[Point]]:
    found: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        found.setdefault(read_key(point), []).append(point)
    return found


def _find_telling(keys: Sequence[tuple[Any, ...]]) -> list[int]:
    """The first places that tell all keys apart; a place that adds nothing is left out."""
    telling: list[int] = []
    count = 1
    for place in range(len(keys[0])):
        told = len({tuple(key[one] for one in (*telling, place)) for key in keys})
        if told > count:
            telling.append(place)
            count = told
    return telling


def _order_label(label: str) -> tuple[int, str]:
    """Precisions from the widest on, numbers by their value."""
    first = label.split(",")[0]
    place = PRECISIONS.index(first) if first in PRECISIONS else len(PRECISIONS)
    return place, re.sub(r"\d+", lambda number: number[0].zfill(12), label)


def _describe_part(name: str, value: Any) -> str:
    return f"unknown {name}" if value is None else _PARTS[name](value)
