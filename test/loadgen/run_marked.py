"""Runs one LoadGen test over marked images with an engine that can be told to fail.

python run_marked.py LOG_DIR IMAGES [FAILURE]: settings from the environment. Each image carries its
index in its pixels and the engine answers with that, so that every answer can be checked.
python run_marked.py --serve: runs what stdin asks for, each in a fork. See `serve`.
CK_MARKED_DEPTH: batches in flight; CK_MARKED_FILE_LIMIT: bytes that a file may have;
CK_MARKED_PAUSES_MS=1,3: two engines that take so long for a batch, of which the last one fails.
CK_MARKED_LIBRARY: LoadGen's C++ interface by this library. FAILURE `callback`: what LoadGen calls
lets an exception through.
Prints the outcome as JSON. LoadGen takes one test per process, hence a program of its own.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from ck_mlperf.common.errors import run_main
from ck_mlperf.loadgen.engines import Engine, EngineError
from ck_mlperf.loadgen.harness.native import NativeInterface
from ck_mlperf.loadgen.harness.queued import QueuedSystem
from ck_mlperf.loadgen.harness.sut import SystemUnderTest
from ck_mlperf.loadgen.one_test import remove_logs, run_test
from ck_mlperf.loadgen.resolve import resolve_settings
from ck_mlperf.loadgen.settings import VARIABLES, read_settings
from ck_mlperf.loadgen.time_limit import TimeLimit

# Answers that numpy would make into others without a word, or of which some would be left out.
SPOILT = {
    "twice": lambda labels: np.concatenate([labels, labels]),
    "twice-best": lambda labels: np.repeat(labels[:, 0], 2),
    "float": lambda labels: labels[:, 0].astype(np.float32),
    "float-top5": lambda labels: labels + 0.5,
    "nan": lambda labels: np.full(len(labels), np.nan, np.float32),
    "wide": lambda labels: labels[:, 0].astype(np.int64) + 2**32,
    "unsigned": lambda labels: labels[:, 0].astype(np.uint32),
    "byte": lambda labels: labels.astype(np.uint8),
    "scores": lambda labels: np.zeros((len(labels), 10), np.int32),
}


class MarkedEngine(Engine):
    name = "marked"
    version = "1"
    gives_top5 = True
    max_batch = 64

    def __init__(self, failure: str, depth: int, pause_s: float = 0):
        self.failure = failure
        self.depth = depth
        self.pause_s = pause_s
        self.device = f"marked, {pause_s * 1000:g} ms"
        self.prepared = None
        self.calls = threading.Lock()
        self.batches = []
        self.started = self.collected = 0
        self.loads = []
        self.largest = 0

    def open(self):
        self.fail_at("open", 0)

    def prepare(self, sizes):
        self.fail_at("prepare", 0)
        self.prepared = list(sizes)
        self.thread = threading.get_ident()

    def load(self, images):
        self.fail_at("load", len(self.loads))
        self.loads.append(len(images))
        first, second = images[:, 0, 0, 0].astype(np.int32), images[:, 0, 0, 1].astype(np.int32)
        self.labels = first * 256 + second

    def unload(self):
        self.fail_at("unload", 0)
        self.labels = None

    def enqueue(self, rows):
        assert self.thread == threading.get_ident(), "prepared in another thread"
        with self.alone():
            self.started += 1
            self.largest = max(self.largest, len(rows))
            self.fail_at("enqueue", self.started)
            if self.failure == "interrupt" and self.started == 3:
                os.kill(os.getpid(), signal.SIGINT)
            if self.failure == "slow":
                time.sleep(0.01)
            assert len(self.batches) < self.depth
            self.batches.append(self.labels[list(rows)])

    def collect(self):
        with self.alone():
            time.sleep(self.pause_s)
            self.collected += 1
            self.fail_at("collect", self.collected)
            labels = self.batches.pop(0)
            if self.failure == "short" and self.collected == 3:
                labels = labels[:-1]
            answers = labels[:, None] + np.arange(5, dtype=np.int32)
            return SPOILT[self.failure](answers) if self.failure in SPOILT else answers

    @contextlib.contextmanager
    def alone(self):
        assert self.calls.acquire(blocking=False), "two calls at a time"
        try:
            yield
        finally:
            self.calls.release()

    def close(self):
        self.fail_at("close", 0)

    def fail_at(self, place, count):
        if self.failure == place and count in (0, 3):
            raise EngineError(f"{place} failed")
        if self.failure == f"defect-{place}" and count in (0, 3):
            raise ZeroDivisionError(f"{place} has a defect")
        if self.failure == f"hang-{place}" and count in (0, 3):
            threading.Event().wait()
        if self.failure == f"stuck-{place}" and count in (0, 3):
            ctypes.PyDLL(None).pause()  # a call that keeps Python's global lock
        if self.failure == f"exit-{place}" and count in (0, 3):
            sys.exit(0)


def fail_callback(*_):
    raise ZeroDivisionError("a callback has a defect")


def main():
    log_dir, count, failure = Path(sys.argv[1]), int(sys.argv[2]), (sys.argv[3:] or [""])[0]
    if limit := os.environ.get("CK_MARKED_FILE_LIMIT"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    images = np.zeros((count, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(count), 256)
    depth = int(os.environ.get("CK_MARKED_DEPTH", "1"))
    pauses = [float(ms) / 1000 for ms in os.environ.get("CK_MARKED_PAUSES_MS", "0").split(",")]
    engines = [MarkedEngine("", depth, pause_s) for pause_s in pauses[:-1]]
    engines.append(MarkedEngine(failure, depth, pauses[-1]))
    settings = resolve_settings(
        read_settings({v.name: os.environ.get(v.name, "") for v in VARIABLES}),
        count,
        MarkedEngine.max_batch,
    )
    library = os.environ.get("CK_MARKED_LIBRARY")
    interface = NativeInterface(Path(library)) if library else None
    if failure == "callback":
        SystemUnderTest.issue = QueuedSystem.issue = fail_callback
    with contextlib.ExitStack() as opened:
        limit = None
        if failure.startswith(("hang-", "stuck-")):
            limit = TimeLimit(settings.timeout_s, 600, lambda: remove_logs(log_dir), grace_s=0.5)
            opened.enter_context(limit)
        for engine in engines:
            opened.enter_context(engine)
        outcome = run_test(settings, engines, images, log_dir, interface, limit)
    report = {
        "settings": dataclasses.asdict(outcome.settings),
        "loadgen_settings": outcome.loadgen_settings,
        "top5": None if outcome.top5 is None else outcome.top5.tolist(),
        "loads": engines[0].loads,
        "largest_batch": max(engine.largest for engine in engines),
        "prepared": engines[0].prepared,
        "devices": [dataclasses.asdict(device) for device in outcome.devices],
        "wall_s": outcome.wall_s,
        "interface": outcome.interface,
    }
    print(json.dumps(report, default=str))


def serve():
    """Do what each line of stdin asks for, {"folder", "arguments", "environ"}; print its exit code.

    LoadGen takes one test per process, and to import all that a test needs takes as long as the
    test: so this process imports it and forks. What a run prints goes to files of the folder.
    """
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            os.chdir(request["folder"])
            sys.argv[1:] = request["arguments"]
            os.environ.update(request["environ"])
            for fd, name in enumerate((os.devnull, "stdout", "stderr")):
                os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), fd)
            run_main(main)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        import ck_mlperf.loadgen.harness.queued
        import ck_mlperf.loadgen.harness.wheel  # noqa: F401

        serve()
    else:
        run_main(main)
