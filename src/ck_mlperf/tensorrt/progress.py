"""The progress of a build, as TensorRT's monitor reports it, shown on a terminal or as lines."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import TextIO

_SHOW_EVERY_S = 0.1
_WIDTH = 72


@dataclasses.dataclass
class _Phase:
    name: str
    parent: str | None
    steps: int
    done: int = 0


class Progress:
    """Takes TensorRT's reports, from any of its threads, and shows them; asks it to stop.

    On a terminal: one line, with a percentage. Elsewhere: one line for each part of the build.
    No method raises: TensorRT's threads cannot handle an exception.
    """

    def __init__(
        self,
        title: str,
        stream: TextIO | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """title: what is built. stream: where to show it; None: nowhere. clock: in seconds."""
        self._title = title
        self._clock = clock
        self._stream = stream
        self._is_terminal = stream is not None and stream.isatty()
        self._lock = threading.Lock()
        self._phases: list[_Phase] = []
        self._shown: set[str] = set()
        self._shown_at = -_SHOW_EVERY_S
        self._share = 0.0
        self._stopped = False

    @property
    def share(self) -> float:
        """How much of the build is done, 0 to 1; never less than before."""
        return self._share

    def stop(self) -> None:
        """Ask TensorRT to stop, which it does after its current step."""
        self._stopped = True

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps begins, within the phase `parent`."""
        with self._lock:
            self._phases.append(_Phase(name, parent, max(steps, 1)))
            is_part = parent is None or parent == self._phases[0].name
            if not self._is_terminal and is_part and name not in self._shown:
                self._shown.add(name)
                self._write(f"{self._title}: {name}\n")
            self._update(name)

    def step(self, name: str, number: int) -> bool:
        """Step `number` (from 0) of a phase is done. Returns whether to go on."""
        with self._lock:
            for phase in reversed(self._phases):
                if phase.name == name:
                    phase.done = min(number + 1, phase.steps)
                    break
            self._update(name)
        return not self._stopped

    def finish(self, name: str) -> None:
        """A phase is over, whether or not all its steps were reported."""
        with self._lock:
            for index in reversed(range(len(self._phases))):
                if self._phases[index].name == name:
                    del self._phases[index]
                    break

    def close(self) -> None:
        """Clear the terminal's line."""
        if self._is_terminal:
            self._write("\r" + " " * _WIDTH + "\r")

    def _update(self, name: str) -> None:
        self._share = max(self._share, min(self._compute_share(None, 0), 1.0))
        now = self._clock()
        if self._is_terminal and now - self._shown_at >= _SHOW_EVERY_S:
            self._shown_at = now
            text = f"{self._title}: {self._share:4.0%} {name}"
            self._write("\r" + text[:_WIDTH].ljust(_WIDTH))

    def _compute_share(self, parent: str | None, depth: int) -> float:
        """The share that is done of the latest phase within `parent`."""
        for index in reversed(range(len(self._phases))):
            phase = self._phases[index]
            if phase.parent == parent and depth < len(self._phases):
                inner = self._compute_share(phase.name, depth + 1)
                return min(phase.done + inner, phase.steps) / phase.steps
        return 0.0

    def _write(self, text: str) -> None:
        try:
            if self._stream is not None:
                self._stream.write(text)
                self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone; the build goes on
            self._stream, self._is_terminal = None, False
