"""Values of an axis as text: lists, ranges and powers, such as `1,2,4..64`."""

from __future__ import annotations

import re
from fractions import Fraction

from ck_mlperf.common.errors import UserError

MAX_VALUES = 1000
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,6})?"
_PART = re.compile(rf"({_NUMBER})(?:\.\.({_NUMBER})(?::(x?)({_NUMBER}))?)?")

SYNTAX = "want numbers and ranges: 1,2,3 or 1..8 or 8..32:8 or 1..64:x2 or 1,2,4..64"


def parse_axis(text: str) -> tuple[Fraction, ...]:
    """The values of `text`, in the order written, none twice.

    A part between commas is a number or a range, which stops at its last number or before it:

    - `a..b:s` adds s each time, `a..b:xr` multiplies by r;
    - `p,q,a..b` continues the two numbers before it: `1,2,4..64` gives powers of two (q/p is a/q),
      `2,4,6..20` the even numbers (q-p is a-q); any other start is refused;
    - `a..b` alone, after a range, or after a-1 adds 1.

    Raises UserError for anything else, and for more than MAX_VALUES values.
    """
    values: list[Fraction] = []
    numbers: list[Fraction] = []  # since the last range
    for part in map(str.strip, text.split(",")):
        match = _PART.fullmatch(part)
        if not match:
            raise UserError(f"'{part[:40]}': {SYNTAX}")
        first, last, times, step = match.groups()
        if last is None:
            numbers.append(Fraction(first))
            values.append(Fraction(first))
        else:
            values += _expand(part, Fraction(first), Fraction(last), times, step, numbers)
            numbers = []
        if len(values) > MAX_VALUES:
            raise UserError(f"'{text[:40]}' has more than {MAX_VALUES} values: take larger steps")
    return tuple(dict.fromkeys(values))


def _expand(
    part: str,
    first: Fraction,
    last: Fraction,
    times: str | None,
    step: str | None,
    before: list[Fraction],
) -> list[Fraction]:
    if last < first:
        raise UserError(f"'{part}': the range ends before it begins")
    if step is not None:
        factor, summand = (Fraction(step), Fraction(0)) if times else (Fraction(1), Fraction(step))
    else:
        factor, summand = _carry_on(part, first, before)
    if (factor <= 1 and summand <= 0) or first * factor + summand <= first:
        raise UserError(f"'{part}': the step leads nowhere")
    values: list[Fraction] = []
    while first <= last and len(values) <= MAX_VALUES:  # one more than allowed is refused
        values.append(first)
        first = first * factor + summand
    return values


def _carry_on(part: str, first: Fraction, before: list[Fraction]) -> tuple[Fraction, Fraction]:
    """(factor, summand) that give the next value."""
    if not before or (first - before[-1] == 1 and len(before) == 1):
        return Fraction(1), Fraction(1)
    if len(before) > 1:
        p, q = before[-2:]
        if q - p == first - q:
            return Fraction(1), q - p
        if p and q * q == first * p:
            return q / p, Fraction(0)
    difference = first - before[-1]
    raise UserError(
        f"'{part}' after {float(before[-1]):g}: say how it goes on, {part}:1 or "
        f"{part}:{float(difference):g} (steps) or {part}:x2 (times)"
    )
