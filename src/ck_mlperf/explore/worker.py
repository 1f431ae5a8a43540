"""On a worker's machine: carry out one scheduled run, and send what it recorded to the caller.

    python -m ck_mlperf.explore.worker     a request (JSON, one line) on stdin, the reply on stdout

When stdin ends, so does the run: the caller is gone.

A run works in a folder and records into an experiment entry of its own. Both are named after the
machine and its GPUs (CUDA_VISIBLE_DEVICES), so that several GPUs of a machine, and several machines
with one file system, can share a checkout. A lock of that name lets one run at a time use them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import MOST_LOG_BYTES, read_regular, read_text
from ck_mlperf.common.locks import hold_lock
from ck_mlperf.explore.entry import Entry, ask_ck
from ck_mlperf.explore.local import LocalExecutor
from ck_mlperf.explore.runs import Configuration, Network, Outcome, ScheduledRun
from ck_mlperf.results.kept_logs import pack_kept

CHECKOUT = Path(__file__).resolve().parents[3]
# What decides what a run does: the library, and the CK entries around it.
_FOLDERS = ("module", "package", "program", "script", "soft", "src")
# What CK, Python and pip put there.
_MADE = re.compile(r"tmp.*|__pycache__|.*\.egg-info")
_LOG_BYTES = 1_000_000


def digest_checkout(root: Path = CHECKOUT) -> str:
    """A digest of the files that decide what a run does, by name and content.

    Not the commit: files may differ from it, and a copy has none.
    """
    digest = hashlib.sha256()
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            parts = path.relative_to(root).parts
            if path.is_file() and not any(map(_MADE.fullmatch, parts)):
                content = hashlib.sha256(read_regular(path)).hexdigest()
                digest.update(f"{'/'.join(parts)} {content}\n".encode())
    return digest.hexdigest()


def make_request(run: ScheduledRun | None) -> str:
    """The request to carry out `run`; None: only to check whether this machine can."""
    return json.dumps({"digest": digest_checkout(), "run": run and asdict(run)})


def read_run(words: Mapping[str, Any]) -> ScheduledRun:
    """The run that a request names."""
    fields = words["configuration"]
    configuration = Configuration(**{**fields, "network": Network(**fields["network"])})
    return ScheduledRun(**{**words, "configuration": configuration, "argv": tuple(words["argv"])})


def main() -> None:
    # A shell starts what it puts in the background with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch_stdin, daemon=True).start()
    try:
        reply = _answer(request)
    except UserError as error:
        reply = {"refused": f"{platform.node()}: {error}"}
    json.dump(reply, sys.stdout)


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    if request["digest"] != digest_checkout():
        return {
            "refused": f"{platform.node()}: {CHECKOUT} is another version of this repository than "
            "the caller's. Bring both to the same commit, without local changes"
        }
    if request["run"] is None:
        return {}
    repository = Path(ask_ck("find", "repo:local").strip())
    slot = name_slot(platform.node(), os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    path = repository / f".explore-worker.{slot}.lock"
    with hold_lock(path) as lock, _make_scratch(repository, slot) as scratch:
        run = read_run(request["run"])
        watcher = _Watcher()
        LocalExecutor(scratch, lock).run([_move(run, scratch.name, slot)], watcher)
        return _describe(watcher.outcome, scratch)


def name_slot(host: str, devices: str) -> str:
    """A name, for files, of the GPUs of a machine that one run has to itself."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{host} {devices or 'all'}").strip("-")


def _move(run: ScheduledRun, entry: str, slot: str) -> ScheduledRun:
    """The run with a folder to work in and an entry of its own."""
    argv = [
        f"--record_uoa={entry}" if word.startswith("--record_uoa=") else word for word in run.argv
    ]
    return replace(run, argv=(*argv, f"--tmp_dir=tmp-{slot}"))


class _Watcher:
    outcome: Outcome

    def started(self, run: ScheduledRun) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        self.outcome = outcome


def _describe(outcome: Outcome, scratch: Entry) -> dict[str, Any]:
    if outcome.failure is not None:
        log = read_regular(scratch.log_path(outcome.run.id), MOST_LOG_BYTES)[-_LOG_BYTES:]
        failure = msgspec.to_builtins(outcome.failure)
        reply = {"failure": failure, "log": log.decode(errors="replace")}
    else:
        paths = [*scratch.folder.glob("ckp-*.json"), scratch.folder / "pipeline.json"]
        reply = {
            "files": {
                path.name: read_text(path, MOST_LOG_BYTES) for path in paths if path.exists()
            },
            "logs": pack_kept(scratch.folder),
        }
    return {"wall_s": outcome.wall_s, "host": platform.node(), **reply}


@contextlib.contextmanager
def _make_scratch(repository: Path, slot: str) -> Iterator[Entry]:
    """An empty experiment entry that is removed in the end."""
    scratch = Entry(repository, f"explore-worker.{slot}")
    scratch.remove()  # a worker that was killed left it
    try:
        scratch.make({"worker": slot}, ["explore-worker"])
        yield scratch
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption now would leave it
        scratch.remove()


def _watch_stdin() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    run_main(main)
