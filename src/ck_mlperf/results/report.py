"""What a run prints: its figure, what ran, accuracy, latencies, what disturbed them, the verdicts.

Plain ASCII, and on a terminal colours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ck_mlperf.loadgen.engines.registry import find_by_name
from ck_mlperf.results.record import JUDGED_BY, Accuracy, Dataset, Engine, Model, Record
from ck_mlperf.results.rules import has_whole_list, is_whole_validation_set
from ck_mlperf.results.rules_text import describe_rules, list_rules, wrap
from ck_mlperf.results.verdicts import LoadgenVerdict, RulesVerdict, Verdicts

WIDTH = 80
"""Of the table of latencies."""
TEXT_WIDTH = 120
TODAYS_STREAMS = 8
"""Samples per query of MultiStream since MLPerf Inference v2.0."""
_RULE = "-" * WIDTH
# What is not in the registry is not TensorRT, and says so.
_UNKNOWN = "{name} {version} on {device} (not TensorRT)"
_ROWS = {
    "min": "min",
    "median": "p50",
    "average": "mean",
    "90 percentile": "p90",
    "99 percentile": "p99",
    "99.9 percentile": "p99_9",
    "max": "max",
}
_TAILS = ("p99", "p99_9")
# Where a query has the machine to itself, its latency is also a rate.
_HAS_RATE = ("SingleStream", "MultiStream")
_VERDICT = re.compile(r"\b(IN)?VALID\b")
_GREEN, _RED, _DEFAULT, _BOLD, _PLAIN = (f"\x1b[{code}m" for code in (32, 31, 39, 1, 0))


def describe_run(dataset: Dataset, model: Model, engine: Engine) -> str:
    """One line: which images, which network in which precision, on what."""
    known = find_by_name(engine.name)
    form = known.title if known else _UNKNOWN
    ran_on = form.format(name=engine.name, version=engine.version, device=engine.device)
    network = f"{model.name} {model.precision}" if model.precision else model.name
    weights = ", RANDOM WEIGHTS" if model.weights == "random" else ""
    return f"{_describe_images(dataset)} | model {network}{weights} on {ran_on}"


def format_report(
    record: Record,
    silent: bool = False,
    verbose: bool = False,
    width: int = TEXT_WIDTH,
    colour: bool = False,
) -> str:
    """All that is printed after a run; ends with a newline.

    silent: one line per verdict. verbose: also the rules in full and every LoadGen setting in
    force. width: of a line, in characters. colour: with a terminal's control codes.
    """
    verdicts = record.verdicts
    lines = [
        *wrap("", describe_figure(record), width, indent=2),
        *wrap("", describe_run(record.dataset, record.model, record.engine), width, indent=2),
    ]
    if record.accuracy:
        lines += [_RULE, format_accuracy(record.accuracy), _RULE]
    lines += _draw_latencies(record)
    lines += _list_devices(record.engine)
    for disturbance in record.find_disturbances():
        lines += wrap("Disturbed: ", disturbance.text, width, indent=2)
    lines.append("")
    said: set[str] = set()
    """Advice that was printed: it is given once."""
    if silent:
        lines += _list_verdict_titles(verdicts)
    else:
        lines += _list_loadgen(verdicts.loadgen, width)
        said.update(verdicts.loadgen.advice)
        lines += _list_needed(record, said, width)
        if not verbose:
            lines.append("CK_VERBOSE=yes prints the rules in full; record.json has them, too.")
    if verbose:
        lines += list_rules(verdicts.rules, said, width)
        lines.append("LoadGen's settings in force:")
        lines += [f"  {name} = {value}" for name, value in record.settings.loadgen.items()]
    text = "\n".join(lines) + "\n"
    return _colour(text) if colour else text


def describe_figure(record: Record) -> str:
    """The headline: the figure that the scenario is judged by, and LoadGen's verdict."""
    loadgen, accuracy, title = record.verdicts.loadgen, record.accuracy, str(record.scenario)
    if record.counts and record.scenario == "MultiStream":
        title += f", {record.counts.samples_per_query} samples a query"
    figure = _describe_speed(record)
    if figure is None:
        assert accuracy is not None  # a record has one of them
        figure = f"accuracy {accuracy.top1_percent:.3f}% of {accuracy.total:,} images"
    verdict = f", {_describe_verdict(loadgen)}" if _has_verdict(loadgen) else ""
    return f"{title}: {figure}{verdict}"


def _describe_speed(record: Record) -> str | None:
    """p90 for SingleStream, p99 for MultiStream, as early stopping estimates them; else a rate."""
    throughput, latencies = record.throughput, record.latencies_ns
    if throughput is None or latencies is None:
        return None
    if throughput.peak_qps:
        return f"highest rate within the bound {_round(throughput.peak_qps)} queries/s"
    if record.scenario == "Server" and throughput.samples_per_second is not None:
        rate = _round(throughput.samples_per_second)
        return f"{rate} queries/s, p99 {_round(latencies.p99 / 1e6)} ms"
    if estimate := _find_estimate(record):
        return f"{estimate[0]} {_round(estimate[1] / 1e6)} ms"
    if percentile := JUDGED_BY.get(record.scenario):
        latency_ns = getattr(latencies, percentile)
        return (
            f"{percentile} {_round(latency_ns / 1e6)} ms as measured, too few queries for an "
            "estimate"
        )
    if throughput.samples_per_second is None:
        return "one query, which gives no rate"
    return f"{_round(throughput.samples_per_second)} samples/s"


def _find_estimate(record: Record) -> tuple[str, int] | None:
    """The percentile that the rules judge, and early stopping's estimate of it in ns."""
    percentile = JUDGED_BY.get(record.scenario)
    if percentile is None or record.early_stopped_ns is None:
        return None
    estimate: int | None = getattr(record.early_stopped_ns, percentile)
    return (percentile, estimate) if estimate else None


def _round(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def format_accuracy(accuracy: Accuracy) -> str:
    """The line `accuracy=75.200%, good=376, total=500`."""
    return f"accuracy={accuracy.top1_percent:.3f}%, good={accuracy.good}, total={accuracy.total}"


def _describe_images(dataset: Dataset) -> str:
    used = dataset.used
    if dataset.name == "digits":
        return f"digits ({used} handwritten digits, not ImageNet)"
    if dataset.name != "imagenet":
        return f"{dataset.name} ({used} images, not ImageNet)"
    if is_whole_validation_set(dataset):
        return f"ImageNet (the whole validation set, {used} images)"
    if has_whole_list(dataset):
        return f"ImageNet ({used} images, the validation set by names and labels only)"
    return f"ImageNet ({used} images, not the whole validation set)"


def _draw_latencies(record: Record) -> Iterator[str]:
    counts, throughput, latencies = record.counts, record.throughput, record.latencies_ns
    if counts is None or throughput is None or latencies is None:
        return
    per_query = counts.samples_per_query
    edge = f"+{'-' * 24}+{'-' * 26}+{'-' * 26}+"
    yield f"+{'-' * (WIDTH - 2)}+"
    yield f"|{'LATENCIES (in nanoseconds and fps)':^{WIDTH - 2}}|"
    yield edge
    sizes = "1 sample each" if per_query == 1 else f"{per_query} samples each"
    yield f"| {'number of queries run':<22} | {counts.queries:>24} | {sizes:>24} |"
    yield edge
    for title, name in _ROWS.items():
        if name in _TAILS and JUDGED_BY.get(record.scenario) not in _TAILS:
            continue
        latency_ns = getattr(latencies, name)
        # Offline's latencies are of samples of the one query: only the last one ends it.
        is_whole = record.scenario == "Offline" and name == "max"
        has_fps = latency_ns and (record.scenario in _HAS_RATE or is_whole)
        fps = f"{per_query * 1e9 / latency_ns:.3f} fps" if has_fps else "-"
        yield f"| {title:<22} | {f'{latency_ns} ns':>24} | {fps:>24} |"
    yield edge
    rates = []
    if throughput.samples_per_second:
        rates.append(f"{throughput.samples_per_second:.3f} samples/s")
    if throughput.peak_qps:
        rates.append(f"highest rate within the bound {throughput.peak_qps:.3f} queries/s")
    if estimate := _find_estimate(record):
        rates.append(f"{estimate[0]} by early stopping {estimate[1]} ns")
    if record.timing.performance_s is not None:
        rates.append(f"ran {record.timing.performance_s:.3f} s")
    yield f"{record.scenario}: {', '.join(rates)}"


def _list_devices(engine: Engine) -> Iterator[str]:
    """Who did how much, where several did; records of before there were several do not say."""
    devices = engine.devices or ()
    if len(devices) < 2:
        return
    for device in devices:
        share = f"{device.samples} samples"
        if device.batches:
            share += f", {device.samples / device.batches:.1f} a batch"
        if device.samples_per_second is not None:
            share = f"{device.samples_per_second:.3f} samples/s, {share}"
        yield f"  {device.device}: {share}"


def _list_verdict_titles(verdicts: Verdicts) -> Iterator[str]:
    if _has_verdict(verdicts.loadgen):
        yield _title_loadgen(verdicts.loadgen)
    for judged in verdicts.rules:
        if judged.checks:
            yield describe_rules(judged)
    if verdicts.rules[0].unofficial:
        yield "No official result, whatever the figures"


def _has_verdict(loadgen: LoadgenVerdict) -> bool:
    return loadgen.valid is not None or loadgen.compliance is not None


def _title_loadgen(loadgen: LoadgenVerdict) -> str:
    way = " (C++ interface)" if loadgen.interface == "native" else ""
    return f"LoadGen {loadgen.version}{way}: {_describe_verdict(loadgen)}"


def _describe_verdict(loadgen: LoadgenVerdict) -> str:
    if loadgen.compliance is None:
        return "VALID" if loadgen.valid else "INVALID"
    is_known = loadgen.compliance != "unknown"
    verdict = f"compliance run {loadgen.compliance}" if is_known else "run by an audit.config"
    return f"{verdict}, no fault found" if loadgen.valid is None else f"{verdict}, INVALID"


def _list_loadgen(loadgen: LoadgenVerdict, width: int) -> Iterator[str]:
    if _has_verdict(loadgen):
        yield _title_loadgen(loadgen)
    for label, texts in (
        ("because: ", loadgen.reasons),
        ("error: ", [error.text for error in loadgen.errors]),
        ("-> ", loadgen.advice),
    ):
        for text in texts:
            yield from wrap(f"  {label}", text, width)


def _list_needed(record: Record, said: set[str], width: int) -> Iterator[str]:
    """What stands in the way of an official result, each with what to set.

    said: what advice has been given; what is given here is added.
    """
    rules = record.verdicts.rules
    judged = next((judged for judged in rules if judged.checks), rules[0])
    missing = [] if judged.valid else list(_find_missing(judged, said))
    if missing:
        yield f"Unofficial. Not yet met of {judged.title} ({judged.status}):"
    else:
        yield from wrap("", describe_rules(judged), width, indent=2)
        missing = [f"a submission also needs: {text}" for text in judged.also_needed or []]
    if judged.not_closed:
        missing.append(f"the closed division does not take it: {'; '.join(judged.not_closed)}")
    for text in missing:
        yield from wrap("  - ", text, width)
    if judged.note:
        yield from wrap("  note: ", judged.note, width)
    for other in rules:
        if other.stand_in and record.counts and record.counts.samples_per_query != TODAYS_STREAMS:
            yield from wrap("", f"{describe_rules(other)}; a stand-in: {other.stand_in}", width, 2)


def _find_missing(judged: RulesVerdict, said: set[str]) -> Iterator[str]:
    yield from judged.unofficial
    for check in judged.checks:
        if check.ok or check.metric in ("loadgen_valid", "loadgen_errors"):  # printed before
            continue
        found, colon, advice = (check.advice or f"{check.name} not met").partition(": ")
        yield found + (colon and f": {'as above' if advice in said else advice}")
        said.add(advice)
    if judged.accuracy == "not checked":
        yield "accuracy was not measured in this run: set CK_LOADGEN_MODE=AccuracyOnly"
    if judged.performance == "not measured":
        yield "speed was not measured in this run: set CK_LOADGEN_MODE=PerformanceOnly"


def _colour(text: str) -> str:
    headline, rest = text.split("\n", 1)
    headline = f"{_BOLD}{_VERDICT.sub(_paint, headline)}{_PLAIN}"
    return f"{headline}\n{_VERDICT.sub(_paint, rest)}"


def _paint(verdict: re.Match[str]) -> str:
    return f"{_RED if verdict[0] == 'INVALID' else _GREEN}{verdict[0]}{_DEFAULT}"
