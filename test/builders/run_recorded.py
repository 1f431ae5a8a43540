"""Runs one LoadGen test over noise and prints what tests of the record need, as JSON.

python run_recorded.py LOG_DIR KIND MODEL.onnx: settings from the environment, KIND as in ENGINES.
LoadGen takes one test per process, hence a program of its own.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

import msgspec
import numpy as np

from ck_mlperf.loadgen.engines import make_engine
from ck_mlperf.loadgen.one_test import run_test
from ck_mlperf.loadgen.settings import VARIABLES, read_settings
from ck_mlperf.results.build import describe_engine

log_dir, kind, model = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
images = np.random.default_rng(0).integers(0, 256, (500, 28, 28, 3), np.uint8)
with make_engine(kind, model) as engine:
    outcome = run_test(
        read_settings({v.name: os.environ.get(v.name, "") for v in VARIABLES}),
        engine,
        images,
        log_dir,
    )
print(
    json.dumps(
        {
            "loadgen_settings": outcome.loadgen_settings,
            "top5": None if outcome.top5 is None else outcome.top5.tolist(),
            "wall_s": outcome.wall_s,
            "devices": [dataclasses.asdict(device) for device in outcome.devices],
            "conditions": outcome.conditions,
            "engine": msgspec.to_builtins(describe_engine([engine], outcome.settings.batch_size)),
        }
    )
)
