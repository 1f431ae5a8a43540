"""LoadGen's detail log as the submission checker reads it: the first value of each key.

results.logs reads the log of a run that has just ended, where the last value counts and whatever
is not as LoadGen writes it is an error. Here the log may be anybody's.
"""

from __future__ import annotations

from typing import Any

from ck_mlperf.common.files import parse_json

_MARKER = ":::MLLOG"


class DetailLog:
    """The values in a detail log, by key. Raises ValueError where the checker would give up."""

    def __init__(self, content: bytes) -> None:
        self.values: dict[str, Any] = {}
        self.errors: list[str] = []
        lines = content.decode().split("\n") if content else []
        for number, line in enumerate(lines, start=1):
            if line.startswith(_MARKER):
                self._add(line[len(_MARKER) :], number)
            elif number == 1:
                raise ValueError(f"line 1 does not begin with {_MARKER}")

    def _add(self, text: str, number: int) -> None:
        try:
            event = parse_json(text)
            key, value = event["key"], event["value"]
            is_error = event["metadata"]["is_error"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number} is damaged") from error
        self.values.setdefault(key, value)
        if is_error:
            self.errors.append(str(value))
