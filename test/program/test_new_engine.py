"""An engine is one file and one entry of the registry; everything else finds it there."""

from __future__ import annotations

import json

import pytest

PROGRAM = "program:image-classification-tensorrt-loadgen-py"

ENGINE = '''\
"""An engine that finds every digit to be a 7."""

import numpy as np

from ck_mlperf.loadgen.engines.base import Engine


class Seven(Engine):
    name = "seven"
    version = "7.0"
    device = "a guess"

    def __init__(self, model, recipe=None, device=0):
        self.count = 0

    def open(self):
        pass

    def load(self, images):
        pass

    def unload(self):
        pass

    def enqueue(self, rows):
        self.count = len(rows)

    def collect(self):
        return np.full(self.count, 7, np.int32)

    def close(self):
        pass
'''
ENTRY = 'EngineEntry("seven", "seven:Seven", "seven", "always 7, {version}", ONNX, "device.seven"),'
LAST = ")\n\n\nENGINES = "


@pytest.mark.slow
def test_a_new_engine_runs(own_ck):
    engines = own_ck.root / "src" / "ck_mlperf" / "loadgen" / "engines"
    (engines / "seven.py").write_text(ENGINE)
    registry = engines / "registry.py"
    text = registry.read_text()
    assert text.count(LAST) == 1
    registry.write_text(text.replace(LAST, f"    {ENTRY}\n{LAST}"))
    tags = "--dep_add_tags.weights=model,onnx,digits,device.seven"
    printed = own_ck("run", PROGRAM, tags).stdout
    record = json.loads((own_ck.tmp / "record.json").read_text())
    assert record["engine"]["name"] == "seven"
    assert record["accuracy"]["top1_percent"] == 10.0
    assert "on always 7, 7.0\n" in printed
    failed = own_ck("run", PROGRAM, tags + ",device.cuda", code=2)
    assert "device.cuda and device.seven: want one engine, not several" in failed.stderr
