"""The verdicts on a run, as its record has them: LoadGen's own, and the rules'."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ck_mlperf.common import units

InterfaceName = Literal["wheel", "native"]
Relation = Literal["at_least", "at_most", "equal"]
Constraint = Literal["latency", "duration", "queries", "early stopping"]
Compliance = Literal["TEST01", "TEST04", "unknown"]


class Message(Struct, frozen=True):
    """An error or a warning in LoadGen's log."""

    text: str
    """Its text."""
    count: Annotated[int, units.unit("1"), units.POSITIVE]
    """How many times it is there."""


class LoadgenVerdict(Struct, frozen=True):
    """LoadGen's own verdict, under the settings in force."""

    version: str
    """LoadGen's version."""
    valid: bool | None
    """null: an accuracy run has none, nor has a compliance run in which LoadGen finds no fault.
    false also where the wall clock was set by over 1% of the test's time, which LoadGen does not
    find."""
    reasons: list[str]
    """Why it is not valid."""
    advice: list[str]
    """What to change."""
    errors: list[Message]
    """Errors in LoadGen's log, the first 20."""
    warnings: list[Message]
    """Warnings in LoadGen's log, the first 20."""
    interface: InterfaceName = "wheel"
    """How queries reached it: by its Python module (wheel; so also where this is missing), or by
    its C++ interface (native)."""
    not_met: list[Constraint] | None = None
    """The constraints that were not met: latency (Server's bound), duration, queries (their
    number), early stopping (too few queries for the percentile). null: an accuracy run has none,
    or not noted."""
    needed_queries: int | None = None
    """About how many queries early stopping needs, where nothing but early stopping is not met."""
    compliance: Compliance | None = None
    """Which of MLPerf's compliance tests it was, by LoadGen's log; null: none."""
    revision: str | None = None
    """The git commit that LoadGen was built from, abbreviated as LoadGen's log has it. null: not
    noted, as before version 3."""


class Figure(Struct, frozen=True):
    """The figure that a set of rules reports for the scenario."""

    name: str
    """Its name."""
    value: float | None
    """In `unit`; null: not measured, or too few queries for the estimate."""
    unit: str
    """ms, samples/s, or empty: a number of samples."""


class Check(Struct, frozen=True):
    """One rule, applied."""

    part: Literal["performance", "accuracy"]
    """What it is about."""
    metric: str
    """What is measured, as in rules.json."""
    name: str
    """The same in words."""
    relation: Relation
    """How measured has to be to required."""
    required: float
    """In `unit`."""
    measured: float | None
    """In `unit`; null: LoadGen's log does not say."""
    unit: str
    """Of required and measured: s, ms, %, images, queries, samples, samples/s, errors; empty: 1 for
    yes, 0 for no."""
    margin: float | None
    """Room left, relative to required; negative: short by that; null: not a matter of more or
    less."""
    ok: bool
    """Whether it is met."""
    advice: str | None
    """What to change; null where it is met."""
    source: str
    """Document and section of the rule."""


class RulesVerdict(Struct, frozen=True):
    """The verdict of one set of rules."""

    id: str
    """Which set, as in rules.json."""
    title: str
    """Its name."""
    status: Literal["current", "retired", "historic"]
    """current: a round takes results by it; historic: none does any more (older records also have
    retired)."""
    note: str | None
    """What else to know of the set."""
    valid: bool
    """Whether the run meets the rules on performance and on accuracy, and nothing makes it
    unofficial or the rule a stand-in. A submission needs more: see also_needed."""
    performance: Literal["met", "not met", "not measured"]
    """The rules on performance."""
    accuracy: Literal["met", "not met", "not checked", "not comparable"]
    """The rule on accuracy; not checked: not measured in this run; not comparable: measured on
    other images."""
    unofficial: list[str]
    """Why the rules do not speak of this run, whatever its figures."""
    stand_in: str | None
    """Why the rule itself could not be applied in this scenario; null: it was."""
    summary: str
    """Performance and accuracy in words."""
    result: Figure
    checks: list[Check]
    """The rules that were applied."""
    not_closed: list[str] | None = None
    """Why the closed division does not take the run; the open division may. null: not noted."""
    also_needed: list[str] | None = None
    """What a submission needs besides this run. null: not noted."""


class Verdicts(Struct, frozen=True):
    """LoadGen's verdict and the rules'."""

    loadgen: LoadgenVerdict
    rules_version: Annotated[int, Meta(ge=1)]
    """Version of rules.json."""
    rules: Annotated[list[RulesVerdict], Meta(min_length=1)]
    """One verdict for each set of rules that has the scenario."""
