"""Watches a GPU of a stand-in driver: `python watch_until_killed.py SAMPLER...`."""

import ctypes
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fakes.driver import FakeDriver, FakeGpu

from ck_mlperf.machine.conditions import Watch

ctypes.CDLL = FakeDriver(FakeGpu()).load
with Watch([0], sampler=sys.argv[1:]):
    print("watching", flush=True)
    time.sleep(600)
