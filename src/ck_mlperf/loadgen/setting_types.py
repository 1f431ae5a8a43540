"""The types of settings: how a value is spelt in the environment and in a job, and its range."""

from __future__ import annotations

import abc
import re
from pathlib import Path
from typing import Any

from ck_mlperf.common.suggest import suggest

ALL_DEVICES = "all"


class SettingType(abc.ABC):
    """What the values of a setting are."""

    range: str
    """The allowed values, in words."""

    @abc.abstractmethod
    def check(self, value: Any) -> Any:
        """The value that a job's JSON holds as `value`. ValueError says what is wanted instead."""

    def parse(self, text: str) -> Any:
        """The value that `text` spells. ValueError says what is wanted instead."""
        return self.check(text)


class Choice(SettingType):
    """One of a few words."""

    def __init__(self, choices: tuple[str, ...]) -> None:
        self.choices = choices
        self.range = ", ".join(choices)

    def check(self, value: Any) -> str:
        if value not in self.choices:
            raise ValueError(f"want one of {self.range}{suggest(str(value), self.choices, 0.5)}")
        return str(value)


class Number(SettingType):
    """A number between two ends, both allowed."""

    convert: type[int] | type[float] = float
    wanted = "a number"

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.range = f"{low:g} to {high:,}"

    def check(self, value: Any) -> int | float:
        is_number = type(value) in (int, self.convert)
        if not is_number or not self.low <= value <= self.high:  # nan is in no range
            raise ValueError(f"want {self.wanted}, {self.range}")
        return self.convert(value)

    def parse(self, text: str) -> int | float:
        try:
            value = self.convert(text)
        except ValueError:
            return self.check(None)
        return self.check(value)


class Integer(Number):
    """A whole number between two ends, both allowed."""

    convert = int
    wanted = "a whole number"


class Flag(SettingType):
    """true or false; yes or no in the environment."""

    range = "yes, no"

    def check(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("want true or false")
        return value

    def parse(self, text: str) -> bool:
        if text.lower() in ("yes", "1", "true", "on"):  # CK gives a bare `--env.NAME` as 'yes'
            return True
        if text.lower() in ("no", "0", "false", "off"):
            return False
        raise ValueError("want yes or no")


class Text(SettingType):
    """Text of a certain form, and what is made of it."""

    def __init__(self, range: str, pattern: str = ".+", make: type[str] | type[Path] = str) -> None:
        self.range, self.pattern, self.make = range, pattern, make

    def check(self, value: Any) -> str | Path:
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            raise ValueError(f"want {self.range}")
        return self.make(value)


class Devices(SettingType):
    """CUDA's numbers of GPUs, none twice, or 'all'."""

    def __init__(self, high: int) -> None:
        self.high = high
        self.range = f"{ALL_DEVICES}, or numbers from 0 to {high:,}: 0,1"

    def check(self, value: Any) -> tuple[int, ...] | str:
        if value == ALL_DEVICES:
            return ALL_DEVICES
        for number in (value if isinstance(value, list) else ()) or (None,):
            if type(number) is not int or not 0 <= number <= self.high:
                raise ValueError(f"want {self.range}")
            if value.count(number) > 1:
                raise ValueError(f"GPU {number} is there twice")
        return tuple(value)

    def parse(self, text: str) -> tuple[int, ...] | str:
        words = [word.strip() for word in text.split(",")]
        are_numbers = all(re.fullmatch("[0-9]{1,8}", word) for word in words)
        return self.check([*map(int, words)] if are_numbers else text)
