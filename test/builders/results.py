"""Results of runs that meet MLPerf's rules, with changes, and their verdicts."""

from __future__ import annotations

from msgspec.structs import replace

from ck_mlperf.results.logs import LoadgenResult, Performance
from ck_mlperf.results.record import (
    Accuracy,
    Counts,
    EarlyStopped,
    Latencies,
    Throughput,
    WeightsSource,
)
from ck_mlperf.results.rules import judge, load_rules
from ck_mlperf.results.verdicts import Check

from .records import make_record

RULES = load_rules()
DIGITS = make_record()
ENGINE = DIGITS.engine
WHOLE = replace(
    DIGITS.dataset,
    name="imagenet",
    count=50_000,
    used=50_000,
    source_list_sha256=RULES["dataset"]["list_sha256"],
)
(MLPERF_FILE,) = RULES["model"]["files"]
SOURCE = WeightsSource("0" * 64, MLPERF_FILE["md5"], MLPERF_FILE["url"])
RESNET = replace(DIGITS.model, name="any", network="resnet50-v1.5", source=SOURCE)
SEEDS = RULES["rounds"]["v6.1"]["seeds"]
OLD_SEEDS = RULES["rounds"]["v5.0"]["seeds"]


def make_accuracy(good: int, total: int = 50_000) -> Accuracy:
    return Accuracy(100 * good / total, None, good, total)


GOOD = make_accuracy(38_000)


def make_result(
    scenario: str, p99_ms: float = 1.0, version: str = "6.0.17", **changes
) -> LoadgenResult:
    """A run that meets today's rules, with `changes` to its figures or its settings."""
    p99_ns, others_ns = round(p99_ms * 1e6), round(p99_ms * 0.9e6)
    latencies_ns = dict.fromkeys(Latencies.__struct_fields__, others_ns)
    settings = {
        "min_duration_ms": 600_000,
        "performance_sample_count": 1024,
        "target_latency_percentile": 0.9 if scenario == "SingleStream" else 0.99,
        "target_latency_ns": 15_000_000,
        "target_qps": 1000,
        **(SEEDS if version.startswith("6") else OLD_SEEDS),
    }
    figures = {
        "is_valid": True,
        "reasons": [],
        "queries": 1 if scenario == "Offline" else 300_000,
        "samples_per_query": {"MultiStream": 8, "Offline": 660_000}.get(scenario, 1),
        "duration_s": 600.0,
        "samples_per_second": 1000.0,
        "not_met": [],
    }
    settings |= {name: value for name, value in changes.items() if name not in figures}
    figures |= {name: value for name, value in changes.items() if name in figures}
    queries, per_query = figures["queries"], figures["samples_per_query"]
    rate = figures["samples_per_second"]
    performance = Performance(
        is_valid=figures["is_valid"],
        reasons=figures["reasons"],
        duration_s=figures["duration_s"],
        counts=Counts(queries, queries * per_query, per_query),
        throughput=Throughput(rate, rate / per_query, None),
        latencies_ns=Latencies(**latencies_ns | {"p99": p99_ns, "p99_9": p99_ns, "max": p99_ns}),
        early_stopped_ns=EarlyStopped(p90=950_000, p99=1_100_000),
        not_met=figures["not_met"],
    )
    return LoadgenResult(
        version=version,
        scenario=scenario,
        mode="SubmissionRun",
        settings=settings,
        performance=performance,
        errors=[],
        warnings=[],
    )


def judge_by(rule_set, result, accuracy=GOOD, dataset=WHOLE, model=RESNET, engine=ENGINE):
    verdicts = judge(result, accuracy, dataset, model, engine)
    (verdict,) = [verdict for verdict in verdicts if verdict.id == rule_set]
    return verdict


def failed(verdict) -> dict[str, Check]:
    return {check.metric: check for check in verdict.checks if not check.ok}
