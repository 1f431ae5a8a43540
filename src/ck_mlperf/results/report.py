"""What a run prints: what ran, the accuracy, the latencies, what disturbed them, the verdicts.

Plain ASCII.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ck_mlperf.loadgen.engines.registry import find_by_name
from ck_mlperf.results.record import Accuracy, Dataset, Engine, Model, Record
from ck_mlperf.results.rules import has_whole_list, is_whole_validation_set
from ck_mlperf.results.verdicts import Check, LoadgenVerdict, RulesVerdict, Verdicts

WIDTH = 80
_RULE = "-" * WIDTH
# What is not in the registry is not TensorRT, and says so.
_UNKNOWN = "{name} {version} on {device} (not TensorRT)"
_ROWS = {
    "min": "min",
    "median": "p50",
    "average": "mean",
    "90 percentile": "p90",
    "max": "max",
}


def describe_run(dataset: Dataset, model: Model, engine: Engine) -> str:
    """The first line of a run: which images, which network in which precision, on what."""
    known = find_by_name(engine.name)
    form = known.title if known else _UNKNOWN
    ran_on = form.format(name=engine.name, version=engine.version, device=engine.device)
    network = f"{model.name} {model.precision}" if model.precision else model.name
    weights = ", RANDOM WEIGHTS" if model.weights == "random" else ""
    return f"{_describe_images(dataset)} | model {network}{weights} on {ran_on}"


def format_report(record: Record, silent: bool = False, verbose: bool = False) -> str:
    """All that is printed after a run, its first line included; ends with a newline.

    silent: one line per verdict. verbose: also every LoadGen setting in force.
    """
    lines = [describe_run(record.dataset, record.model, record.engine)]
    if record.accuracy:
        lines += [_RULE, format_accuracy(record.accuracy), _RULE]
    lines += _draw_latencies(record)
    lines += _list_devices(record.engine)
    for disturbance in record.find_disturbances():
        lines += _wrap("Disturbed: ", disturbance.text, indent=2)
    lines.append("")
    if silent:
        lines += _list_verdict_titles(record.verdicts)
    else:
        lines += _list_verdicts(record.verdicts)
    if verbose:
        lines.append("LoadGen's settings in force:")
        lines += [f"  {name} = {value}" for name, value in record.settings.loadgen.items()]
    return "\n".join(lines) + "\n"


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
        latency_ns = getattr(latencies, name)
        # Offline's latencies are of samples of the one query: only the last one ends it.
        has_fps = latency_ns and (record.scenario != "Offline" or name == "max")
        fps = f"{per_query * 1e9 / latency_ns:.3f} fps" if has_fps else "-"
        yield f"| {title:<22} | {f'{latency_ns} ns':>24} | {fps:>24} |"
    yield edge
    rates = []
    if throughput.samples_per_second:
        rates.append(f"{throughput.samples_per_second:.3f} samples/s")
    if throughput.peak_qps:
        rates.append(f"highest rate within the bound {throughput.peak_qps:.3f} queries/s")
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
            yield f"{judged.title} ({judged.status}): {_summarise(judged)}"
    if verdicts.rules[0].unofficial:
        yield "No official result, whatever the figures"


def _has_verdict(loadgen: LoadgenVerdict) -> bool:
    return loadgen.valid is not None or loadgen.compliance is not None


def _title_loadgen(loadgen: LoadgenVerdict) -> str:
    way = " (C++ interface)" if loadgen.interface == "native" else ""
    verdict = "VALID" if loadgen.valid else "INVALID"
    if loadgen.compliance is not None:
        is_known = loadgen.compliance != "unknown"
        verdict = f"compliance run {loadgen.compliance}" if is_known else "run by an audit.config"
        verdict += ", no fault found" if loadgen.valid is None else ", INVALID"
    return f"LoadGen {loadgen.version}{way}: {verdict}"


def _summarise(judged: RulesVerdict) -> str:
    if not judged.valid:
        return judged.summary
    division = "of the open division " if judged.not_closed else ""
    return f"this run meets the rules {division}for one run, not verified by MLCommons"


def _list_verdicts(verdicts: Verdicts) -> Iterator[str]:
    loadgen, rules = verdicts.loadgen, verdicts.rules
    said = set(loadgen.advice)
    if _has_verdict(loadgen):
        yield _title_loadgen(loadgen)
    for label, texts in (
        ("because: ", loadgen.reasons),
        ("error: ", [error.text for error in loadgen.errors]),
        ("-> ", loadgen.advice),
    ):
        for text in texts:
            yield from _wrap(f"  {label}", text)
    # These are the same in all of them.
    if rules[0].unofficial:
        yield from _wrap(
            "No official result, whatever the figures: ", "; ".join(rules[0].unofficial), indent=2
        )
    if rules[0].not_closed:
        yield from _wrap(
            "The closed division does not take it: ", "; ".join(rules[0].not_closed), indent=2
        )
    before = None
    for judged in rules:
        if judged.checks:
            is_same = before is not None and judged.checks == before.checks
            yield from _describe_verdict(judged, said, before if is_same else None)
            before = judged


def _describe_verdict(
    judged: RulesVerdict, said: set[str], same: RulesVerdict | None
) -> Iterator[str]:
    """said: what advice has been given; what is given here is added. same: a verdict by the same
    rules that was described before."""
    verdict = _summarise(judged)
    if judged.stand_in and not judged.valid:
        verdict += f"; a stand-in: {judged.stand_in}"
    yield from _wrap(f"{judged.title} ({judged.status}): ", verdict, indent=2)
    if judged.note:
        yield from _wrap("  note: ", judged.note)
    if judged.valid and judged.also_needed:
        yield from _wrap("  a submission also needs: ", "; ".join(judged.also_needed), indent=5)
    if same:
        yield f"  the same rules as {same.title}"
        return
    result = judged.result
    if result.value is not None:
        figure = f"{result.name} {result.value:.6f}".rstrip("0").rstrip(".")
        yield from _wrap("  result: ", f"{figure} {result.unit}")
    met = [_describe_check(check) for check in judged.checks if check.ok]
    if met:
        yield from _wrap("  met: ", "; ".join(met))
    for check in judged.checks:
        if check.ok:
            continue
        if check.metric in ("loadgen_valid", "loadgen_errors"):  # that has been said above
            yield f"  NOT met: {check.name}"
            continue
        margin = "" if check.margin is None else f" ({_describe_margin(check)})"
        found, _, advice = (check.advice or "").partition(": ")
        text = f"{found}: as above" if advice in said else f"{found}: {advice}"
        said.add(advice)
        yield from _wrap(f"  NOT met{margin}: ", text, indent=5)


def _describe_check(check: Check) -> str:
    if not check.unit or not check.required:
        return check.name
    relation = {"at_least": "at least ", "at_most": "at most ", "equal": ""}[check.relation]
    margin = "" if check.margin is None else f", {_describe_margin(check)}"
    return (
        f"{check.name} {check.measured:.9g} ({relation}{check.required:.9g} {check.unit}{margin})"
    )


def _describe_margin(check: Check) -> str:
    """The room left, +12.0% or -12.0%; where that is more than all of it, how many times it is."""
    assert check.margin is not None
    if check.measured is not None and check.measured >= 2 * check.required:
        times = check.measured / check.required
        return f"{times:,.0f} times" if times >= 100 else f"{times:.3g} times"
    return f"{check.margin:+.1%}"


def _wrap(label: str, text: str, indent: int | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        width=100,
        initial_indent=label,
        subsequent_indent=" " * (len(label) if indent is None else indent),
        break_on_hyphens=False,
    )
