"""One LoadGen test of a plan, with settings from the environment.

python run_once.py PLAN IMAGES LOG_DIR prints, as JSON, LoadGen's verdict, how many samples each
engine answered and, in accuracy mode, the labels.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

from ck_mlperf.common.errors import run_main
from ck_mlperf.images.preprocessed import load_preprocessed
from ck_mlperf.loadgen.engines import make_engine
from ck_mlperf.loadgen.one_test import run_test
from ck_mlperf.loadgen.resolve import resolve_devices
from ck_mlperf.loadgen.settings import VARIABLES, read_settings
from ck_mlperf.results.logs import read_answers, read_result


def main() -> None:
    plan, images, log_dir = map(Path, sys.argv[1:4])
    settings = read_settings({v.name: os.environ.get(v.name, "") for v in VARIABLES})
    engines = [
        make_engine("tensorrt", plan, device=device)
        for device in resolve_devices(settings, "tensorrt")
    ]
    with contextlib.ExitStack() as opened:
        for engine in engines:
            opened.enter_context(engine)
        print("open", flush=True)
        outcome = run_test(settings, engines, load_preprocessed(images).images, log_dir)
    performance = read_result(log_dir).performance
    answers = None
    if settings.mode == "AccuracyOnly":
        answers = {int(index): int(label) for index, label in read_answers(log_dir)}
    devices = [device.samples for device in outcome.devices]
    verdict = performance and ("VALID" if performance.is_valid else str(performance.reasons))
    print(json.dumps({"verdict": verdict, "answers": answers, "devices": devices}))


run_main(main)
