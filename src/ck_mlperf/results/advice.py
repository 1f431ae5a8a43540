"""What to change so that a check that failed holds."""

from __future__ import annotations

import math

from ck_mlperf.results.logs import LoadgenResult


def advise(metric: str, required: float, measured: float, result: LoadgenResult) -> str:
    """The advice for one failed check of rules.json, in words.

    metric, required, measured: the check's; result: of the run.
    """
    performance = result.performance
    if metric == "top1_percent":
        return (
            f"{measured:.3f}% is under {required:.3f}%: check the model's recipe (mean, scale, "
            "channels, crop, labels offset), then the precision"
        )
    assert performance is not None
    if metric == "loadgen_valid":
        return "LoadGen INVALID because: " + "; ".join(performance.reasons)
    if metric == "loadgen_errors":
        return "LoadGen's log has errors: " + "; ".join(error.text for error in result.errors[:3])
    if metric == "duration_s":
        return f"ran {measured:.3g} s of {required:g} s: " + _advise_duration(required, result)
    if metric == "loaded_images":
        return (
            f"{measured:g} of {required:g} images in memory: set CK_LOADGEN_BUFFER_SIZE and "
            f"CK_LOADGEN_DATASET_SIZE to {required:g} or more, with a data set that has as many"
        )
    if metric == "drawn_at_random":
        return (
            "not all images are drawn at random: take performance_issue_same and "
            "performance_issue_unique out of user.conf"
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
        f"p99 is {measured:.1f} ms, over the {required:g} ms bound by "
        f"{(measured - required) / required:.0%}: " + _advise_latency(required, measured, result)
    )


def advise_loadgen(result: LoadgenResult) -> list[str]:
    """What to change so that LoadGen itself calls the run valid, in words."""
    performance = result.performance
    assert performance is not None
    advice = []
    if _ran_out(result):
        advice.append(_advise_expectation(result))
    if result.scenario == "Server":
        bound_ms = result.get_number("target_latency_ns") / 1e6
        p99_ms = performance.latencies_ns.p99 / 1e6
        if p99_ms > bound_ms:
            advice.append(_advise_latency(bound_ms, p99_ms, result))
    return advice


def _ran_out(result: LoadgenResult) -> bool:
    assert result.performance is not None
    return 1000 * result.performance.duration_s < result.get_number("min_duration_ms")


def _advise_duration(required_s: float, result: LoadgenResult) -> str:
    advice = []
    if result.get_number("min_duration_ms") < 1000 * required_s:
        advice.append(
            f"set CK_LOADGEN_DURATION={required_s:g}, or min_duration in user.conf "
            "(CK_LOADGEN_COUNT_OVERRIDE alone sets no duration)"
        )
    if _ran_out(result):
        advice.append(_advise_expectation(result))
    return "; ".join(advice)


def _advise_expectation(result: LoadgenResult) -> str:
    """LoadGen makes its queries ahead, from the rate or the latency that it is told to expect."""
    performance = result.performance
    assert performance is not None
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


def _advise_latency(required_ms: float, measured_ms: float, result: LoadgenResult) -> str:
    performance = result.performance
    assert performance is not None
    if result.scenario == "MultiStream":
        samples = math.floor(performance.counts.samples_per_query * required_ms / measured_ms)
        if samples:
            return f"lower CK_LOADGEN_MULTISTREAMNESS to about {samples}"
        return "one sample alone takes longer; another model, precision or machine is needed"
    sent = result.get_number("target_qps")
    done = performance.throughput.samples_per_second or 0
    if done < 0.95 * sent:  # the queue grew as long as queries came in
        return f"lower CK_LOADGEN_TARGET_QPS below {_format_rate(done)}, which is what it got done"
    return f"lower CK_LOADGEN_TARGET_QPS to about {_format_rate(0.9 * sent)}, or CK_BATCH_SIZE"


def _format_rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
