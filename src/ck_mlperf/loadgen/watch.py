"""End a run whose `ck` has ended, even by `kill -9`: nobody would take its record.

    python -m ck_mlperf.loadgen.watch CK_PID CK_STARTED RUN_PID RUN_ID

A process beside the run, in the same folder: it can stop a run that is busy in a library, and
remove what the run has left only once the run can leave no more. It ends when its stdin does: the
run holds the other end.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ck_mlperf.common.files import read_json
from ck_mlperf.common.processes import is_running, module_command
from ck_mlperf.loadgen.job import JOB
from ck_mlperf.loadgen.run_folder import remove_results

_POLL_S = 0.25


@contextlib.contextmanager
def end_with_ck(ck: Mapping[str, object], run_id: str) -> Iterator[None]:
    """Within the block, this process is killed as soon as the `ck` that started it has ended.

    ck: `Job.ck`. run_id: the job's, which tells whether the folder is still this run's.
    """
    words = (ck["pid"], ck["started"], os.getpid(), run_id)
    command, environment = module_command("ck_mlperf.loadgen.watch", *map(str, words))
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # what kills the run's process group leaves it to clean up
    ):
        yield  # leaving Popen's block closes the watcher's stdin and waits for its end


def main() -> None:
    ck, started, run = map(int, sys.argv[1:4])
    if not _wait_for_end(ck, started):
        return
    had_to_kill = os.getppid() == run  # else the run has ended too
    if had_to_kill:
        os.kill(run, signal.SIGKILL)
    os.read(0, 1)  # ends with the run
    # Another run may have waited for the folder, and have it now.
    with contextlib.suppress(FileNotFoundError):
        if read_json(Path(JOB))["run_id"] == sys.argv[4]:
            remove_results()
    if had_to_kill:  # said last: whoever read what `ck` prints may be gone as well
        print(
            f"error: the `ck` that started this run (process {ck}) has ended, and so has the run",
            file=sys.stderr,
        )


def _wait_for_end(pid: int, started: int) -> bool:
    """Wait for the end of a process (True) or of stdin (False)."""
    watched, timeout_s = [0], None
    try:
        watched.append(os.pidfd_open(pid))
    except (AttributeError, OSError):  # not Linux, or gone, or a sandbox that has no such call
        timeout_s = _POLL_S
    # The process first: when both end at once, its end is what matters.
    while is_running(pid, started):
        if select.select(watched, [], [], timeout_s)[0] == [0] and is_running(pid, started):
            return False
    return True


if __name__ == "__main__":
    main()
