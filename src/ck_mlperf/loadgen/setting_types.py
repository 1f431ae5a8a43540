"""The types of settings: how a value is spelt in the environment and in a job, and its range."""

from __future__ import annotations

import abc
import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ck_mlperf.common.suggest import suggest

ALL_DEVICES = "all"


class SettingType(abc.ABC):
    """What a setting's values are."""

    @property
    @abc.abstractmethod
    def range(self) -> str:
        """The allowed values, in words."""

    @abc.abstractmethod
    def check(self, value: Any) -> Any:
        """The value that a job's JSON holds as `value`. ValueError says what is wanted instead."""

    def parse(self, text: str) -> Any:
        """The value that `text` spells. ValueError says what is wanted instead."""
        return self.check(text)


@dataclass(frozen=True)
class Choice(SettingType):
    """One of a few words."""

    choices: tuple[str, ...]

    @property
    def range(self) -> str:
        return ", ".join(self.choices)

    def check(self, value: Any) -> str:
        if value not in self.choices:
            raise ValueError(f"want one of {self.range}{suggest(str(value), self.choices, 0.5)}")
        return str(value)


@dataclass(frozen=True)
class Number(SettingType):
    """A number between two ends, both allowed."""

    low: float
    high: float
    is_whole: bool = False

    @property
    def range(self) -> str:
        return f"{self.low:g} to {int(self.high):,}"

    def check(self, value: Any) -> int | float:
        types = (int,) if self.is_whole else (int, float)
        if type(value) not in types or not self.low <= value <= self.high:  # nan is in no range
            wanted = "a whole number" if self.is_whole else "a number"
            raise ValueError(f"want {wanted}, {self.range}")
        return int(value) if self.is_whole else float(value)

    def parse(self, text: str) -> int | float:
        value = None
        with contextlib.suppress(ValueError):
            value = int(text) if self.is_whole else float(text)
        return self.check(value)


def whole(low: int, high: int) -> Number:
    """A whole number from `low` to `high`."""
    return Number(low, high, is_whole=True)


class Flag(SettingType):
    """yes or no."""

    range = "yes, no"

    def check(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("want true or false")
        return value

    def parse(self, text: str) -> bool:
        if text.lower() in ("yes", "1", "true", "on"):  # CK hands over a bare `--env.NAME` as 'yes'
            return True
        if text.lower() in ("no", "0", "false", "off"):
            return False
        raise ValueError("want yes or no")


class File(SettingType):
    """The path of a file, which is read later."""

    range = "a file"

    def check(self, value: Any) -> Path:
        if not isinstance(value, str):
            raise ValueError(f"want {self.range}")
        return Path(value)


class Label(SettingType):
    """A name without spaces."""

    range = "1 to 64 letters, digits, `.`, `_` or `-`"

    def check(self, value: Any) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", str(value)):
            raise ValueError(f"want {self.range}")
        return str(value)


@dataclass(frozen=True)
class Devices(SettingType):
    """CUDA's numbers of GPUs, none twice, or 'all'."""

    high: int

    @property
    def range(self) -> str:
        return f"{ALL_DEVICES}, or numbers from 0 to {self.high:,}: 0,1"

    def check(self, value: Any) -> tuple[int, ...] | str:
        if value == ALL_DEVICES:
            return ALL_DEVICES
        numbers = value if isinstance(value, list) and value else [None]
        for number in numbers:
            if type(number) is not int or not 0 <= number <= self.high:
                raise ValueError(f"want {self.range}")
            if numbers.count(number) > 1:
                raise ValueError(f"GPU {number} is there twice")
        return tuple(numbers)

    def parse(self, text: str) -> tuple[int, ...] | str:
        if text == ALL_DEVICES:
            return ALL_DEVICES
        parts = [part.strip() for part in text.split(",")]
        is_number = re.compile(r"[0-9]{1,8}").fullmatch
        return self.check([int(part) if is_number(part) else None for part in parts])
