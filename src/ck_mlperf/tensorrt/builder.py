"""Builds of plans in another process (`ck_mlperf.tensorrt.builds`), where TensorRT starts once."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from typing import IO

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.processes import cut, describe_end, module_command


class Builder:
    """Builds plans in one process, where TensorRT starts once.

    Where that crashes, this process goes on, and the next build starts another. A context manager.
    """

    def __init__(self) -> None:
        self.libraries: set[str] = set()
        """NVIDIA's that the process has loaded."""
        self._process: subprocess.Popen[str] | None = None
        self._printed: IO[str]

    def __enter__(self) -> Builder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process that builds; None: the next build starts one."""
        return None if self._process is None else self._process.pid

    def build(self, *options: str) -> None:
        """Build a plan by `ck_mlperf.tensorrt.build`'s options. Raises UserError."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(options), file=process.stdin, flush=True)
        line = process.stdout.readline()
        if not line:
            raise UserError(self.close())
        answer = json.loads(line)
        self.libraries.update(answer["libraries"])
        if answer["error"]:
            raise UserError(answer["error"])

    def _start(self) -> subprocess.Popen[str]:
        command, environment = module_command("ck_mlperf.tensorrt.builds")
        self._printed = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            text=True,
        )
        return self._process

    def close(self) -> str:
        """Let the process end. Returns how it ended, and what it printed last."""
        if self._process is None:
            return ""
        process, self._process = self._process, None
        with contextlib.suppress(BrokenPipeError):
            process.communicate()
        with self._printed as printed:
            printed.seek(0)
            text = cut(printed.read())
        return f"{text}\n{describe_end(process.returncode)}".strip()
