"""The rules' verdict on a run: the table in rules.json, applied.

No verdict here is MLPerf's: a result is one only when MLCommons has reviewed and published it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from ck_mlperf.loadgen.engines.registry import NOTHING, find_by_name
from ck_mlperf.results.advice import advise
from ck_mlperf.results.logs import LoadgenResult
from ck_mlperf.results.record import Accuracy, Dataset, Engine, Model
from ck_mlperf.results.verdicts import Check, Figure, Relation, RulesVerdict

NAMES = {
    "loadgen_valid": "LoadGen's verdict",
    "loadgen_errors": "no errors in LoadGen's log",
    "duration_s": "duration",
    "loaded_images": "images in memory",
    "drawn_at_random": "images drawn at random",
    "percentile": "percentile",
    "queries": "queries",
    "samples": "samples",
    "samples_per_query": "samples per query",
    "latency_bound_ms": "latency bound in force",
    "p90_ms": "90th percentile",
    "p99_ms": "99th percentile",
    "early_stopped_p90_ms": "90th percentile, early-stopped",
    "early_stopped_p99_ms": "99th percentile, early-stopped",
    "samples_per_second": "throughput",
    "top1_percent": "top-1 accuracy",
}
_PERFORMANCE = {
    "met": "performance rules met",
    "not met": "performance rules NOT met",
    "not measured": "performance not measured in this run",
}
_ACCURACY = {
    "met": "accuracy met",
    "not met": "accuracy NOT met",
    "not checked": "accuracy not checked in this run",
    "not comparable": "accuracy not comparable (other images)",
}


def load_rules() -> dict[str, Any]:
    """The table of rules."""
    rules: dict[str, Any] = json.loads(
        Path(__file__).with_name("rules.json").read_text(encoding="utf-8")
    )
    return rules


def judge(
    result: LoadgenResult,
    accuracy: Accuracy | None,
    dataset: Dataset,
    model: Model,
    engine: Engine,
) -> list[RulesVerdict]:
    """One verdict for each set of rules that has the run's scenario.

    accuracy: None where it was not measured.
    """
    rules = load_rules()
    metrics = _measure(result, accuracy)
    reasons = list(_find_unofficial(rules, result, dataset, model, engine))
    return [
        _judge_set(rule_set, rules["sources"], result, metrics, reasons, dataset)
        for rule_set in rules["rule_sets"]
        if result.scenario in rule_set["scenarios"]
    ]


def is_whole_validation_set(dataset: Dataset) -> bool:
    """Whether it is all of ImageNet's validation set, by the contents of its files."""
    return has_whole_list(dataset) and dataset.known_by == "contents"


def has_whole_list(dataset: Dataset) -> bool:
    """Whether it has the names and labels of all of ImageNet's validation set."""
    wanted = load_rules()["dataset"]
    return (dataset.name, dataset.used, dataset.source_list_sha256) == (
        wanted["name"],
        wanted["count"],
        wanted["list_sha256"],
    )


def _measure(result: LoadgenResult, accuracy: Accuracy | None) -> dict[str, float | None]:
    """Every metric that a rule may ask for; None: not measured."""
    metrics: dict[str, float | None] = {
        "top1_percent": None if accuracy is None else accuracy.top1_percent
    }
    performance = result.performance
    if performance is None:
        return metrics
    settings = result.settings
    counts, stopped_ns = performance.counts, performance.early_stopped_ns
    return metrics | {
        "loadgen_valid": int(performance.is_valid),
        "loadgen_errors": sum(error.count for error in result.errors),
        "duration_s": performance.duration_s,
        "loaded_images": result.get_number("performance_sample_count"),
        "drawn_at_random": int(
            not settings.get("performance_issue_same")
            and not settings.get("performance_issue_unique")
        ),
        "percentile": round(100 * result.get_number("target_latency_percentile"), 6),
        "queries": counts.queries,
        "samples": counts.samples,
        "samples_per_query": counts.samples_per_query,
        "latency_bound_ms": result.get_number("target_latency_ns") / 1e6,
        "p90_ms": performance.latencies_ns.p90 / 1e6,
        "p99_ms": performance.latencies_ns.p99 / 1e6,
        "early_stopped_p90_ms": stopped_ns.p90 and stopped_ns.p90 / 1e6,
        "early_stopped_p99_ms": stopped_ns.p99 and stopped_ns.p99 / 1e6,
        "samples_per_second": performance.throughput.samples_per_second,
    }


def _find_unofficial(
    rules: Mapping[str, Any],
    result: LoadgenResult,
    dataset: Dataset,
    model: Model,
    engine: Engine,
) -> Iterator[str]:
    """Why the run is none that the rules speak of, whatever its figures are."""
    known = find_by_name(engine.name)
    if known and known.runs_on == NOTHING:
        yield "no network ran: the null engine measures the harness"
    if not has_whole_list(dataset):
        wanted = rules["dataset"]
        yield (
            f"the images are {dataset.used:,} of {dataset.name}, "
            f"not the {wanted['count']:,} of {wanted['title']}"
        )
    if model.weights == "random":
        yield "the weights are random"
    if not model.name.startswith(rules["model"]["name_prefix"]):
        yield f"the model is {model.name}, not {rules['model']['title']}"
    if result.mode == "FindPeakPerformance":
        yield "FindPeakPerformance is a search, not a test"


def _judge_set(
    rule_set: Mapping[str, Any],
    sources: Mapping[str, str],
    result: LoadgenResult,
    metrics: Mapping[str, float | None],
    reasons: list[str],
    dataset: Dataset,
) -> RulesVerdict:
    stand_in = rule_set["stand_in"].get(result.scenario)
    checks = [
        _check(rule, sources, result, metrics)
        for rule in rule_set["checks"]
        if result.scenario in rule.get("scenarios", (result.scenario,))
        and metrics.get(rule["metric"]) is not None
        # The accuracy to reach is that of the whole set: on other images it says nothing.
        and (rule["part"] != "accuracy" or has_whole_list(dataset))
    ]
    performance = _sum_up(checks, "performance") or "not measured"
    accuracy = _sum_up(checks, "accuracy") or (
        "not checked" if metrics["top1_percent"] is None else "not comparable"
    )
    entry = rule_set["scenarios"][result.scenario]
    return RulesVerdict(
        id=rule_set["id"],
        title=rule_set["title"],
        status=rule_set["status"],
        note=rule_set["note"],
        valid=performance == accuracy == "met" and not reasons and stand_in is None,
        performance=performance,
        accuracy=accuracy,
        unofficial=reasons,
        stand_in=stand_in,
        summary=f"{_PERFORMANCE[performance]}; {_ACCURACY[accuracy]}",
        result=Figure(
            name=NAMES[entry["result"]],
            value=metrics.get(entry["result"]),
            unit=entry["unit"],
        ),
        checks=checks,
    )


def _sum_up(checks: list[Check], part: str) -> Literal["met", "not met"] | None:
    of_part = [check.ok for check in checks if check.part == part]
    return None if not of_part else "met" if all(of_part) else "not met"


def _check(
    rule: Mapping[str, Any],
    sources: Mapping[str, str],
    result: LoadgenResult,
    metrics: Mapping[str, float | None],
) -> Check:
    relation: Relation = next(name for name in get_args(Relation) if name in rule)
    required, measured = rule[relation], metrics[rule["metric"]]
    assert measured is not None
    ok = {
        "at_least": measured >= required,
        "at_most": measured <= required,
        "equal": measured == required,
    }[relation]
    margin = None
    if relation != "equal" and required:
        room = measured - required if relation == "at_least" else required - measured
        margin = room / required
    return Check(
        part=rule["part"],
        metric=rule["metric"],
        name=NAMES[rule["metric"]],
        relation=relation,
        required=required,
        measured=None if math.isnan(measured) else measured,
        unit=rule["unit"],
        margin=None if margin is None or math.isnan(margin) else margin,
        ok=ok,
        advice=None if ok else advise(rule["metric"], required, measured, result),
        source=f"{sources[rule['source']]}: {rule['section']}",
    )
