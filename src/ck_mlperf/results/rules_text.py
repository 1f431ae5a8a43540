"""The rules of MLPerf's rounds on a run, each with what was measured: the report in full."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ck_mlperf.results.verdicts import Check, RulesVerdict


def wrap(label: str, text: str, width: int, indent: int | None = None) -> list[str]:
    """Lines of at most `width`; all but the first are indented, by default like the label."""
    return textwrap.wrap(
        text,
        width=width,
        initial_indent=label,
        subsequent_indent=" " * (len(label) if indent is None else indent),
        break_on_hyphens=False,
    )


def list_rules(rules: list[RulesVerdict], said: set[str], width: int) -> Iterator[str]:
    """The lines for all sets of rules.

    said: what advice has been given; what is given here is added.
    """
    before = None
    for judged in rules:
        if judged.checks:
            is_same = before is not None and judged.checks == before.checks
            yield from _describe_verdict(judged, said, before if is_same else None, width)
            before = judged


def describe_rules(judged: RulesVerdict) -> str:
    """One line: the set of rules and its verdict."""
    return f"{judged.title} ({judged.status}): {_summarise(judged)}"


def _summarise(judged: RulesVerdict) -> str:
    if not judged.valid:
        return judged.summary
    division = "of the open division " if judged.not_closed else ""
    return f"this run meets the rules {division}for one run, not verified by MLCommons"


def _describe_verdict(
    judged: RulesVerdict, said: set[str], same: RulesVerdict | None, width: int
) -> Iterator[str]:
    """same: a verdict by the same rules that was described before."""
    stand_in = f"; a stand-in: {judged.stand_in}" if judged.stand_in and not judged.valid else ""
    yield from wrap("", describe_rules(judged) + stand_in, width, indent=2)
    if judged.note:
        yield from wrap("  note: ", judged.note, width)
    if judged.valid and judged.also_needed:
        yield from wrap(
            "  a submission also needs: ", "; ".join(judged.also_needed), width, indent=5
        )
    if same:
        yield f"  the same rules as {same.title}"
        return
    result = judged.result
    if result.value is not None:
        figure = f"{result.name} {result.value:.6f}".rstrip("0").rstrip(".")
        yield from wrap("  result: ", f"{figure} {result.unit}", width)
    met = [_describe_check(check) for check in judged.checks if check.ok]
    if met:
        yield from wrap("  met: ", "; ".join(met), width)
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
        yield from wrap(f"  NOT met{margin}: ", text, width, indent=5)


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
