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
from ck_mlperf.models.recognise import RESNET50_V1
from ck_mlperf.results.advice import advise, find_not_random
from ck_mlperf.results.logs import LoadgenResult
from ck_mlperf.results.record import Accuracy, Dataset, Engine, Model
from ck_mlperf.results.verdicts import Check, Figure, Relation, RulesVerdict

NAMES = {
    "loadgen_valid": "LoadGen's verdict",
    "loadgen_errors": "no errors in LoadGen's log",
    "loadgen_of_round": "LoadGen of the round",
    "seeds_of_round": "seeds of the round",
    "min_duration_s": "duration asked for",
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
    "accuracy_errors": "no errors in the accuracy run's log",
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


def list_checks(
    rules: Mapping[str, Any], rule_set: Mapping[str, Any], scenario: str
) -> list[dict[str, Any]]:
    """The rules of a set that hold in a scenario."""
    return [
        check
        for check in rules["rounds"][rule_set["round"]]["checks"]
        if scenario in check.get("scenarios", (scenario,))
    ]


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
    unofficial = list(_find_unofficial(rules, result, dataset, model, engine))
    return [
        _judge_set(rules, rule_set, result, metrics, unofficial, dataset, model)
        for rule_set in rules["rule_sets"]
        if result.scenario in rule_set["scenarios"]
    ]


def refuse_closed(model: Model) -> list[str]:
    """Why the closed division does not take results of the model; [] where it does.

    Closed wants the network and the weights of MLPerf's own file, and int8 calibrated with images
    of one of MLPerf's lists (rules.json: model).
    """
    return list(_refuse_closed(load_rules()["model"], model))


def _refuse_closed(wanted: Mapping[str, Any], model: Model) -> Iterator[str]:
    if model.network != wanted["network"]:
        yield _describe_network(model, wanted["title"])
    source = model.source
    if source is None or source.md5 is None:
        yield (
            "it is not known which file the weights are from: register or convert the model again"
        )
    elif source.md5 not in [file["md5"] for file in wanted["files"]]:
        names = ", ".join(f"{file['file']} (md5 {file['md5']})" for file in wanted["files"])
        yield f"the weights are not MLPerf's: the file's md5 is {source.md5}, want {names}"
    conversion = model.recipe.get("conversion") or {}
    if conversion.get("precision") == "int8" and model.calibration_list is None:
        yield (
            "int8 was not calibrated with images of one of MLPerf's two lists: "
            "ck install package:dataset-imagenet-calibration"
        )


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
    """Every metric that a rule of any round may ask for; None: not measured."""
    metrics: dict[str, float | None] = {
        "top1_percent": None if accuracy is None else accuracy.top1_percent
    }
    errors = sum(error.count for error in result.errors)
    performance = result.performance
    if performance is None:
        return metrics | {"accuracy_errors": errors}
    if result.mode == "FindPeakPerformance":  # its figures are of the last rate that it tried
        return metrics
    counts, stopped_ns = performance.counts, performance.early_stopped_ns
    return metrics | {
        "loadgen_valid": int(performance.is_valid),
        "loadgen_errors": errors,
        "min_duration_s": result.get_number("min_duration_ms") / 1000,
        "duration_s": performance.duration_s,
        "loaded_images": result.get_number("performance_sample_count"),
        "drawn_at_random": (
            None if result.compliance == "TEST04" else int(not find_not_random(result))
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


def _measure_round(
    rules_of_round: Mapping[str, Any], result: LoadgenResult
) -> dict[str, float | None]:
    """The metrics that a round gives their meaning."""
    loadgen, seeds = rules_of_round.get("loadgen"), rules_of_round.get("seeds")
    is_test = result.performance is not None and result.mode != "FindPeakPerformance"
    if not is_test or loadgen is None or seeds is None:
        return {}
    version = _split_version(result.version)
    before = loadgen["before"]
    is_of_round = _split_version(loadgen["from"]) <= version and (
        before is None or version < _split_version(before)
    )
    has_seeds = all(result.settings.get(name) == seed for name, seed in seeds.items())
    return {"loadgen_of_round": int(is_of_round), "seeds_of_round": int(has_seeds)}


def _split_version(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


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
    if model.network != rules["model"]["network"]:
        yield _describe_network(model, rules["model"]["title"])
    if result.mode == "FindPeakPerformance":
        yield "FindPeakPerformance is a search, not a test"
    if result.compliance is not None:
        yield f"a compliance run ({result.compliance}) is a proof for another run, and no result"


def _describe_network(model: Model, wanted: str) -> str:
    """That the network is not the `wanted` one, or that nobody knows it."""
    if model.network == RESNET50_V1:
        return (
            f"the network of {model.name} is ResNet-50 v1, not v1.5: its 1x1 convolutions have the "
            "strides, not its 3x3 ones"
        )
    if model.source is None or model.source.md5 is None:
        return (
            f"it is not known whether the network of {model.name} is {wanted}: an older version "
            "registered or converted it. Do that again"
        )
    return f"the network of {model.name} is not {wanted}"


def _judge_set(
    rules: Mapping[str, Any],
    rule_set: Mapping[str, Any],
    result: LoadgenResult,
    metrics: Mapping[str, float | None],
    unofficial: list[str],
    dataset: Dataset,
    model: Model,
) -> RulesVerdict:
    stand_in = rule_set["stand_in"].get(result.scenario)
    rules_of_round = rules["rounds"][rule_set["round"]]
    metrics = {**metrics, **_measure_round(rules_of_round, result)}
    checks = [
        _check(rule, rules["sources"], result, metrics, rules_of_round)
        for rule in list_checks(rules, rule_set, result.scenario)
        if metrics.get(rule["metric"]) is not None
        # The accuracy to reach is that of the whole set: on other images it says nothing.
        and (rule["part"] != "accuracy" or has_whole_list(dataset))
    ]
    performance = _sum_up(checks, "performance") or "not measured"
    accuracy = _sum_up(checks, "accuracy") or (
        "not checked" if metrics["top1_percent"] is None else "not comparable"
    )
    entry = rule_set["scenarios"][result.scenario]
    valid = performance == accuracy == "met" and not unofficial and stand_in is None
    not_closed = [] if unofficial else list(_refuse_closed(rules["model"], model))
    return RulesVerdict(
        id=rule_set["id"],
        title=rule_set["title"],
        status=rule_set["status"],
        note=rule_set["note"],
        valid=valid,
        performance=performance,
        accuracy=accuracy,
        unofficial=unofficial,
        stand_in=stand_in,
        summary=f"{_PERFORMANCE[performance]}; {_ACCURACY[accuracy]}",
        result=Figure(
            name=NAMES[entry["result"]],
            value=metrics.get(entry["result"]),
            unit=entry["unit"],
        ),
        checks=checks,
        not_closed=not_closed,
        also_needed=list(_list_also_needed(rule_set, result.scenario, bool(not_closed))),
    )


def _list_also_needed(rule_set: Mapping[str, Any], scenario: str, is_open: bool) -> Iterator[str]:
    if rule_set["status"] != "current":  # nobody can submit by it
        return
    others = [name for name in rule_set["scenarios"] if name != scenario]
    yield f"performance and accuracy in {', '.join(others)}"
    if not is_open:
        yield f"in the closed division {' and '.join(rule_set['compliance'])} of each scenario"


def _sum_up(checks: list[Check], part: str) -> Literal["met", "not met"] | None:
    of_part = [check.ok for check in checks if check.part == part]
    return None if not of_part else "met" if all(of_part) else "not met"


def _check(
    rule: Mapping[str, Any],
    sources: Mapping[str, str],
    result: LoadgenResult,
    metrics: Mapping[str, float | None],
    rules_of_round: Mapping[str, Any],
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
        advice=(None if ok else advise(rule["metric"], required, measured, result, rules_of_round)),
        source=f"{sources[rule['source']]}: {rule['section']}",
    )
