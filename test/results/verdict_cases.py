"""Logs of LoadGen with their right verdicts.

The logs in test/data/verdicts/logs.tar.xz are LoadGen 6.0.17's own, of short runs over 1024 images
of noise (the null engine, or the digits network), with a user.conf or an audit.config of MLCommons'
where a case says so. None is as long as the rules ask: `altered` is what a copy has in place of the
log's value, and a case whose name has "altered" is judged by such a copy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

LONG = {"effective_min_duration_ms": 600_000}  # as set; the time that passed is not looked at
V6_0 = {
    "effective_qsl_rng_seed": 2465351861681999779,
    "effective_sample_index_rng_seed": 14276810075590677512,
    "effective_schedule_rng_seed": 3936089224930324775,
}
V5_0 = {
    "loadgen_version": "5.0.20 @ 0000000000",
    "effective_qsl_rng_seed": 6023615788873153749,
    "effective_sample_index_rng_seed": 15036839855038426416,
    "effective_schedule_rng_seed": 9933818062894767841,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A log and what is right to say of it, the accuracy being met and the images right."""

    name: str
    log: str
    """Its name in the archive."""
    loadgen: str
    """What the report's line on LoadGen says: VALID, INVALID, a compliance run, or nothing."""
    broken: tuple[str, ...] = ()
    """The metrics of the rules that are broken, by the first set of rules that has the scenario."""
    checker: tuple[str, ...] = ()
    """What MLCommons' submission checker complained of in the log, for v6.1, closed: the methods of
    checks/performance_check.py (mlcommons/inference b66003e1) that returned False."""
    advice: str = ""
    """Part of the only advice for LoadGen's verdict; empty: there is none."""
    altered: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rules: str = ""
    """The set of rules, where it is not the first one."""

    @property
    def is_valid(self) -> bool:
        """Whether the run meets the rules for one run."""
        is_performance_run = self.loadgen in ("VALID", "INVALID") and not self.log.startswith(
            "peak"
        )
        return is_performance_run and not self.broken


SHORT = ("min_duration_s",)
SHORT_CHECK = ("min_duration_check",)
CASES = [
    Case("a short run", "single-stream", "VALID", SHORT, SHORT_CHECK),
    Case("altered: as long as asked", "single-stream", "VALID", altered=LONG),
    Case("altered: a millisecond less", "single-stream", "VALID", SHORT, SHORT_CHECK,
         altered={"effective_min_duration_ms": 599_999}),
    Case("altered: seeds of v6.0", "single-stream", "VALID", ("seeds_of_round",), ("seeds_check",),
         altered=LONG | V6_0),
    Case("altered: one seed is another", "single-stream", "VALID", ("seeds_of_round",),
         ("seeds_check",), altered=LONG | {"effective_schedule_rng_seed": 1}),
    Case("altered: LoadGen of v6.0", "single-stream", "VALID", ("loadgen_of_round",),
         altered=LONG | {"loadgen_version": "6.0.15 @ 0000000000"}),
    Case("altered: the next LoadGen", "single-stream", "VALID",
         altered=LONG | {"loadgen_version": "6.1.0 @ 0000000000"}),
    Case("altered: 1023 images in memory", "single-stream", "VALID", ("loaded_images",),
         ("performance_sample_count_check",),
         altered=LONG | {"effective_performance_sample_count": 1023}),
    Case("altered: another percentile", "single-stream", "VALID", ("percentile",),
         altered=LONG | {"effective_target_latency_percentile": 0.5}),
    Case("altered: 63 queries", "single-stream", "VALID", ("queries",),
         altered=LONG | {"result_query_count": 63}),
    Case("3 queries", "single-stream-3-queries", "INVALID",
         ("loadgen_valid", "min_duration_s", "queries"), ("latency_check", "min_duration_check"),
         "CK_LOADGEN_COUNT_OVERRIDE=64"),
    Case("ran out of queries", "single-stream-ran-out", "INVALID",
         ("loadgen_valid", "loadgen_errors", "min_duration_s"), SHORT_CHECK,
         "set CK_LOADGEN_TARGET_LATENCY="),
    Case("user.conf: max_duration", "single-stream-max-duration", "INVALID",
         ("loadgen_valid", "loadgen_errors", "min_duration_s"), SHORT_CHECK,
         "take max_duration out of user.conf, or raise it: max_duration_ms = 100"),
    Case("user.conf: max_query_count", "single-stream-max-query-count", "INVALID",
         ("loadgen_valid", "loadgen_errors", "min_duration_s"), SHORT_CHECK,
         "take max_query_count out of user.conf, or raise it: max_query_count = 70"),
    Case("user.conf: performance_issue_unique", "single-stream-issue-unique", "INVALID",
         ("loadgen_valid", "loadgen_errors", "min_duration_s", "drawn_at_random"), SHORT_CHECK,
         "take performance_issue_unique out of user.conf"),
    Case("altered: user.conf: performance_issue_same", "single-stream-issue-same", "VALID",
         ("drawn_at_random",), altered=LONG),
    Case("accuracy, then performance", "submission-run", "VALID", SHORT, SHORT_CHECK),
    Case("altered: 8 samples a query", "multi-stream", "VALID", altered=LONG),
    Case("altered: 30 samples a query", "multi-stream-30-samples", "VALID",
         ("samples_per_query",), altered=LONG),
    Case("altered: 661 queries", "multi-stream", "VALID", ("queries",),
         altered=LONG | {"result_query_count": 661}),
    Case("100 queries of 8", "multi-stream-100-queries", "INVALID",
         ("loadgen_valid", "min_duration_s", "queries"), ("latency_check", "min_duration_check"),
         "CK_LOADGEN_COUNT_OVERRIDE=662"),
    Case("600 samples a query, by the rules of 2019", "multi-stream-slow", "INVALID",
         ("duration_s", "p99_ms", "queries"), ("latency_check", "min_duration_check"),
         "CK_LOADGEN_COUNT_OVERRIDE=662", rules="v0.5"),
    Case("altered: Server", "server", "VALID", altered=LONG),
    Case("altered: Server, v5.0", "server", "VALID", (), ("seeds_check",), altered=LONG | V5_0,
         rules="datacenter"),
    Case("altered: Server, today's LoadGen by v5.0", "server", "VALID",
         ("loadgen_of_round", "seeds_of_round"), altered=LONG, rules="datacenter"),
    Case("Server, 300 queries", "server-300-queries", "INVALID",
         ("loadgen_valid", "min_duration_s"), ("latency_check", "min_duration_check"),
         "CK_LOADGEN_COUNT_OVERRIDE=459"),
    Case("Server, late by its own bound of 1 ms", "server-late", "INVALID",
         ("loadgen_valid", "min_duration_s", "p99_ms"), ("latency_check", "min_duration_check"),
         "lower CK_LOADGEN_TARGET_QPS to about 360"),
    Case("Server, ended by its limit of open queries", "server-overloaded", "INVALID",
         ("loadgen_valid", "loadgen_errors", "min_duration_s", "p99_ms"),
         ("latency_check", "min_duration_check"), "lower CK_LOADGEN_TARGET_QPS below"),
    Case("altered: Server, a bound of 20 ms", "server-bound-20", "VALID", ("latency_bound_ms",),
         ("latency_check",), altered=LONG),
    Case("FindPeakPerformance", "peak", "VALID", (), SHORT_CHECK,
         "CK_LOADGEN_MODE=PerformanceOnly"),
    Case("FindPeakPerformance that cannot begin", "peak-no-start", "INVALID", (),
         ("latency_check", "min_duration_check"), "the search begins at a rate"),
    Case("altered: Offline", "offline", "VALID", altered=LONG),
    Case("altered: Offline, a sample less", "offline", "VALID", ("samples",),
         ("min_query_count_check",),
         altered=LONG
         | {"generated_samples_per_query": 24_575, "effective_samples_per_query": 24_575}),
    Case("Offline that ran out", "offline-ran-out", "INVALID",
         ("loadgen_valid", "min_duration_s", "samples"),
         ("min_query_count_check", "min_duration_check"), "set CK_LOADGEN_TARGET_QPS="),
    Case("altered: user.conf: sample_concatenate_permutation", "offline-permutation", "VALID",
         ("drawn_at_random",), altered=LONG),
    Case("accuracy", "accuracy", ""),
    Case("altered: compliance test TEST01", "test01", "compliance run TEST01, no fault found",
         altered=LONG),
    Case("altered: compliance test TEST04", "test04", "compliance run TEST04, no fault found",
         altered=LONG),
    Case("compliance test, too short", "test04", "compliance run TEST04, no fault found", SHORT,
         SHORT_CHECK),
    Case("altered: compliance test that LoadGen refuses", "test01",
         "compliance run TEST01, INVALID", ("loadgen_valid",), (), "set CK_LOADGEN_TARGET_QPS=",
         altered=LONG | {"result_validity": "INVALID", "result_min_duration_met": False}),
]  # fmt: skip
