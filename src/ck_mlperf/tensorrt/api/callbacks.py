"""What TensorRT calls back: its logger and its progress monitor.

Both derive from classes of the library, so they are defined once it is imported.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorrt

    from ck_mlperf.tensorrt.progress import Progress


@functools.cache
def make_log(api: Any) -> Any:
    """The one ILogger of a library: TensorRT keeps the first that it is given.

    `messages` has the (severity, text) of each message but the verbose ones, from any thread.
    """

    class Adapter(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self.messages: list[tuple[str, str]] = []

        def log(self, severity: tensorrt.ILogger.Severity, msg: str) -> None:
            if severity.name != "VERBOSE":
                self.messages.append((severity.name, msg))

    return Adapter()


def make_monitor(api: Any, progress: Progress) -> Any:
    """An IProgressMonitor that reports to `progress`."""

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
