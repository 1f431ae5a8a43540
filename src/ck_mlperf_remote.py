"""What Dask's workers and scheduler execute. This file is sent to them.

It needs only the standard library and Dask: a worker finds the rest through its own `ck`.
"""

from __future__ import annotations

from typing import Any


def work(request: str, stop: str | None = None) -> str:
    """Hand a request to `python -m ck_mlperf.explore.worker` of this worker's checkout.

    Returns its reply. stop: the name of a Dask event that ends the run early. Raises RuntimeError
    with the reason if this machine cannot carry out runs.

    The request's pipe stays open as long as this process lives, so that the other side notices its
    death, whatever the cause.
    """
    import os
    import shutil
    import subprocess
    import sys
    import threading

    from distributed import Event, get_client

    beside = os.path.join(os.path.dirname(sys.executable), "ck")
    ck = beside if os.access(beside, os.X_OK) else shutil.which("ck")
    if ck is None:
        raise RuntimeError(f"no `ck` command, neither beside {sys.executable} nor on PATH")
    found = subprocess.run(
        [ck, "find", "repo:ck-mlperf"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    checkout = found.stdout.strip()
    source = os.path.join(checkout, "src")
    if found.returncode or not os.path.isdir(source):
        raise RuntimeError(f"the CK of {ck} has no repository ck-mlperf: {found.stdout.strip()}")
    path = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    process = subprocess.Popen(
        [sys.executable, "-m", "ck_mlperf.explore.worker"],
        env=dict(os.environ, PYTHONPATH=path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin = process.stdin
    stdin.write(request + "\n")
    stdin.flush()
    if stop is not None:
        event = Event(stop, client=get_client())

        def watch() -> None:
            try:
                while process.poll() is None and not event.wait(timeout=1):
                    pass
            finally:  # also when the scheduler is gone
                stdin.close()

        threading.Thread(target=watch, daemon=True).start()
    with process:
        reply = process.stdout.read()
    if process.returncode or not reply:
        raise RuntimeError(
            f"ck_mlperf.explore.worker of {checkout} ended with exit code {process.returncode}; "
            "its messages are in this worker's log"
        )
    return reply


def count_slots(resource: str, dask_scheduler: Any = None) -> int:
    """On the scheduler: how many runs its workers can carry out at the same time."""
    return int(sum(w.resources.get(resource, 0) for w in dask_scheduler.workers.values()))
