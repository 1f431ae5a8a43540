"""What TensorRT calls back: its logger and its progress monitor.

Both derive from classes of the library, so they are defined once it is imported.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorrt

    from ck_mlperf.tensorrt.progress import Progress

_SEVERE = ("INTERNAL_ERROR", "ERROR")


class Log:
    """TensorRT's messages, from any of its threads, without the verbose ones."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, str]] = []

    def add(self, severity: str, message: str) -> None:
        if severity != "VERBOSE":
            self._messages.append((severity, message))

    def take(self) -> list[tuple[str, str]]:
        """All (severity, message) since the last call."""
        messages, self._messages = self._messages, []
        return messages

    def take_problems(self) -> tuple[list[str], list[str]]:
        """The errors, the cause first, and the warnings since the last call."""
        messages = self.take()
        errors = [message for severity, message in messages if severity in _SEVERE]
        return errors, [message for severity, message in messages if severity == "WARNING"]


@functools.cache
def make_log(api: Any) -> Any:
    """The one log of a library: TensorRT keeps the first logger that it is given."""

    class Adapter(api.ILogger, Log):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            Log.__init__(self)

        def log(self, severity: tensorrt.ILogger.Severity, msg: str) -> None:
            self.add(severity.name, msg)

    return Adapter()


def make_monitor(api: Any, progress: Progress) -> Any:
    """TensorRT's IProgressMonitor that reports to `progress`."""

    class Adapter(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Adapter()
