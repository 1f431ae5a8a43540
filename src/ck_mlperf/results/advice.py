"""What to change so that a check that failed holds, or so that LoadGen calls a run VALID.

An advice on a check is what was found, ": ", and what to do. Several checks can ask for the same;
the report says that once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ck_mlperf.results.early_stopping import FEWEST_LATE, count_queries
from ck_mlperf.results.logs import LoadgenResult, Performance

_NOT_RANDOM = (
    "performance_issue_same",
    "performance_issue_unique",
    "sample_concatenate_permutation",
)


def advise(
    metric: str,
    required: float,
    measured: float,
    result: LoadgenResult,
    rules_of_round: Mapping[str, Any],
) -> str:
    """The advice for one failed check of rules.json.

    metric, required, measured: the check's; result: of the run.
    """
    if metric == "top1_percent":
        return (
            f"{measured:.3f}% is under {required:.3f}%: check the model's recipe (mean, scale, "
            "channels, crop, labels offset), then the precision"
        )
    if metric == "loadgen_valid":
        return f"LoadGen INVALID because: {'; '.join(_get_performance(result).reasons)}"
    if metric in ("loadgen_errors", "accuracy_errors"):
        errors = "; ".join(error.text for error in result.errors[:3])
        return f"LoadGen's log has errors: {errors}"
    if metric == "loadgen_of_round":
        return (
            f"LoadGen {result.version} is not of the round: install "
            f"{_describe_versions(rules_of_round)}, which has the seeds inside"
        )
    if metric == "seeds_of_round":
        return _advise_seeds(result, rules_of_round)
    if metric == "min_duration_s":
        return f"min_duration was {measured:g} s of {required:g} s: {_ask_duration(required)}"
    if metric == "duration_s":
        return f"ran {measured:.3g} s of {required:g} s: {_advise_duration(required, result)}"
    if metric == "loaded_images":
        return (
            f"{measured:g} of {required:g} images in memory: set CK_LOADGEN_BUFFER_SIZE and "
            f"CK_LOADGEN_DATASET_SIZE to {required:g} or more, with a data set that has as many"
        )
    if metric == "drawn_at_random":
        return (
            "images are not drawn at random with replacement: take "
            f"{' and '.join(find_not_random(result))} out of user.conf"
        )
    if metric == "percentile":
        return (
            f"LoadGen looked at the {measured:g}th percentile, not the {required:g}th: take "
            "target_latency_percentile out of user.conf"
        )
    if metric in ("queries", "samples"):
        return (
            f"ran {measured:,.0f} of {required:,} {metric}: set "
            f"CK_LOADGEN_COUNT_OVERRIDE={required:g}, or leave it out and run longer"
        )
    if metric == "samples_per_query":
        return (
            f"{measured:g} samples per query, not {required:g}: set "
            f"CK_LOADGEN_MULTISTREAMNESS={required:g}"
        )
    if metric == "latency_bound_ms":
        return (
            f"LoadGen was given a bound of {measured:g} ms, over {required:g} ms: set "
            f"CK_LOADGEN_TARGET_LATENCY={required:g}"
        )
    return (
        f"p99 is {measured:.1f} ms, over the bound of {required:g} ms: "
        f"{_advise_latency(required, measured, result)}"
    )


def advise_loadgen(result: LoadgenResult) -> list[str]:
    """What to change so that LoadGen itself calls the run VALID; one piece for each cause.

    FindPeakPerformance: how to find the rate, or what to do with it.
    """
    performance = _get_performance(result)
    if result.mode == "FindPeakPerformance":
        return [_advise_peak(result, performance)]
    return [] if performance.is_valid else list(_advise_causes(result, performance))


def find_not_random(result: LoadgenResult) -> list[str]:
    """The settings in force by which images are not drawn at random, with replacement."""
    return [name for name in _NOT_RANDOM if result.settings.get(name)]


def count_needed_queries(result: LoadgenResult) -> int | None:
    """About how many queries early stopping needs, where nothing but early stopping is not met.

    None: something else is not met, or no number is enough.
    """
    performance = _get_performance(result)
    if performance.not_met != ["early stopping"]:
        return None
    late_share = 1 - result.get_number("target_latency_percentile")
    if result.scenario != "Server":  # it measures a percentile, of which none are late
        return count_queries(late_share, FEWEST_LATE, 0)
    late = performance.late_queries or 0
    return count_queries(late_share, late, late / performance.counts.queries)


def _get_performance(result: LoadgenResult) -> Performance:
    assert result.performance is not None
    return result.performance


def _advise_causes(result: LoadgenResult, performance: Performance) -> Iterator[str]:
    if result.ending == "open queries":  # which makes it short, late and of few queries as well
        yield _advise_rate(result)
        return
    if "duration" in performance.not_met or "queries" in performance.not_met:
        yield _advise_end(result)
    if "latency" in performance.not_met:
        bound_ms = result.get_number("target_latency_ns") / 1e6
        yield _advise_latency(bound_ms, performance.latencies_ns.p99 / 1e6, result)
    if performance.not_met == ["early stopping"]:
        yield _advise_early_stopping(result, performance)


def _advise_end(result: LoadgenResult) -> str:
    """What to do about what ended a run too early."""
    setting = {"max_duration": "max_duration_ms", "max_query_count": "max_query_count"}.get(
        result.ending or ""
    )
    if setting:
        return (
            f"take {result.ending} out of user.conf, or raise it: {setting} = "
            f"{result.get_number(setting):g} ended the run"
        )
    if result.settings.get("performance_issue_unique"):
        return (
            "take performance_issue_unique out of user.conf: it ended the run when each image in "
            "memory had been sent once"
        )
    return _advise_expectation(result)


def _advise_expectation(result: LoadgenResult) -> str:
    """LoadGen makes its queries ahead, from the rate or the latency that it is told to expect."""
    performance = _get_performance(result)
    if result.scenario in ("SingleStream", "MultiStream"):
        expected_ms = performance.latencies_ns.min / 1e6
        return (
            f"set CK_LOADGEN_TARGET_LATENCY={expected_ms:.2g}: LoadGen ran out of the queries "
            "that it had made for the latency that it was told to expect"
        )
    rate = math.ceil(performance.throughput.samples_per_second or 1)
    return (
        f"set CK_LOADGEN_TARGET_QPS={rate}: LoadGen ran out of the samples that it had made "
        "for the rate that it was told to expect"
    )


def _advise_early_stopping(result: LoadgenResult, performance: Performance) -> str:
    needed = count_needed_queries(result)
    counts = performance.counts
    if needed is None:
        share = (performance.late_queries or 0) / counts.queries
        return (
            f"{_advise_rate(result)}: {share:.2%} of the queries were late, so near to what is "
            "allowed that no longer run is enough"
        )
    seconds = _round_up(max(needed * performance.duration_s / counts.queries, 0.001))
    return (
        f"run longer, about {seconds:g} s: set CK_LOADGEN_COUNT_OVERRIDE={needed}, or "
        f"CK_LOADGEN_DURATION={seconds:g}. {counts.queries:,} queries are too few to be sure of "
        "the percentile"
    )


def _advise_peak(result: LoadgenResult, performance: Performance) -> str:
    sent = result.get_number("target_qps")
    if result.ending == "no start":
        bound_ms = result.get_number("target_latency_ns") / 1e6
        if performance.latencies_ns.p50 > 1e6 * bound_ms and performance.counts.queries > 1:
            rate = min(sent, performance.throughput.samples_per_second or sent) / 4
            return (
                f"set CK_LOADGEN_TARGET_QPS={_format_rate(rate)}: the search begins at a rate that "
                f"keeps the bound, and {_format_rate(sent)} does not"
            )
        return (
            "run it again on a quiet machine: most queries kept the bound at "
            f"{_format_rate(sent)} queries/s, where the search begins, and single ones were slow"
        )
    peak = performance.throughput.peak_qps or sent
    return (
        f"run CK_LOADGEN_MODE=PerformanceOnly with CK_LOADGEN_TARGET_QPS={_format_rate(0.9 * peak)}"
        ", 90% of the rate that was found in short runs"
    )


def _advise_duration(required_s: float, result: LoadgenResult) -> str:
    if result.get_number("min_duration_ms") < 1000 * required_s:
        return _ask_duration(required_s)
    return _advise_rate(result) if result.ending == "open queries" else _advise_end(result)


def _ask_duration(required_s: float) -> str:
    return (
        f"set CK_LOADGEN_DURATION={required_s:g}, or min_duration in user.conf "
        "(CK_LOADGEN_COUNT_OVERRIDE alone sets no duration)"
    )


def _advise_latency(required_ms: float, measured_ms: float, result: LoadgenResult) -> str:
    if result.scenario != "MultiStream":
        return _advise_rate(result)
    per_query = _get_performance(result).counts.samples_per_query
    samples = math.floor(per_query * required_ms / measured_ms)
    if samples:
        return f"lower CK_LOADGEN_MULTISTREAMNESS to about {samples}"
    return "one sample alone takes longer; another model, precision or machine is needed"


def _advise_rate(result: LoadgenResult) -> str:
    """Server's rate is too high."""
    sent = result.get_number("target_qps")
    done = _get_performance(result).throughput.samples_per_second or 0
    if done < 0.95 * sent:  # the queue grew as long as queries came in
        return (
            f"lower CK_LOADGEN_TARGET_QPS below {_format_rate(done)}, which is what it got done of "
            f"the {_format_rate(sent)} queries/s (ck explore loadgen --find=max --scenario=Server "
            "finds the highest rate)"
        )
    return f"lower CK_LOADGEN_TARGET_QPS to about {_format_rate(0.9 * sent)}, or CK_BATCH_SIZE"


def _advise_seeds(result: LoadgenResult, rules_of_round: Mapping[str, Any]) -> str:
    others = [
        f"{name} is {result.settings.get(name)}, not the round's {seed}"
        for name, seed in rules_of_round["seeds"].items()
        if result.settings.get(name) != seed
    ]
    return f"{others[0]}: install {_describe_versions(rules_of_round)}, which has the seeds inside"


def _describe_versions(rules_of_round: Mapping[str, Any]) -> str:
    loadgen = rules_of_round["loadgen"]
    before = "" if loadgen["before"] is None else f" and before {loadgen['before']}"
    return f"mlcommons-loadgen {loadgen['from']} or newer{before}"


def _round_up(value: float) -> float:
    """To two digits."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.ceil(value / step) * step, 6)


def _format_rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
