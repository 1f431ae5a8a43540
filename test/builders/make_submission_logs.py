"""Runs the LoadGen tests of a submission, seconds each, and keeps their logs as test data.

python test/builders/make_submission_logs.py: test/data/submission/logs.tar.xz, with the logs of
each run in SCENARIO/KIND/. They are what LoadGen wrote, without its lists of loaded samples, which
would be most of them. The null engine answers for 50,000 images, slowly enough to be steady, so
nothing in them is a result. There is one accuracy run. `submission.py` makes altered copies.
LoadGen takes one test per process, hence one for each run: `... make_submission_logs.py FOLDER`.
"""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "test" / "data" / "submission" / "logs.tar.xz"
SCENARIOS = ("SingleStream", "MultiStream", "Offline", "Server")
KINDS = {
    "performance": {"MODE": "PerformanceOnly"},
    "accuracy": {"MODE": "AccuracyOnly"},
    "TEST01": {"COMPLIANCE": "TEST01"},
    "TEST04": {"COMPLIANCE": "TEST04"},
}
SETTINGS = {
    "Offline": {"TARGET_QPS": "26000"},
    "Server": {"TARGET_QPS": "300", "DURATION": "4"},
}


def make_logs() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        for scenario in SCENARIOS:
            for kind, variables in KINDS.items():
                if kind == "accuracy" and scenario != "Offline":
                    continue
                folder = Path(temporary, scenario, kind)
                folder.mkdir(parents=True)
                settings = {"SCENARIO": scenario, **variables}
                if kind != "accuracy":
                    settings |= {"DURATION": "2", **SETTINGS.get(scenario, {})}
                environment = {f"CK_LOADGEN_{name}": value for name, value in settings.items()}
                command = [sys.executable, str(Path(__file__).resolve()), str(folder)]
                while True:  # on a busy machine a run may be INVALID
                    subprocess.run(command, env=os.environ | environment, check=True)
                    if "INVALID" not in (folder / "mlperf_log_summary.txt").read_text():
                        break
        with tarfile.open(LOGS, "w:xz", preset=9) as archive:
            for path in sorted(Path(temporary).rglob("mlperf_log_*")):
                lines = path.read_bytes().splitlines(keepends=True)
                content = b"".join(line for line in lines if b'"loaded_qsl_set"' not in line)
                if len(content) > 4:  # LoadGen leaves an empty list where it logs no answers
                    member = tarfile.TarInfo(path.relative_to(temporary).as_posix())
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def run_here(folder: Path) -> None:
    import numpy as np

    from ck_mlperf.loadgen.engines import make_engine
    from ck_mlperf.loadgen.one_test import run_test
    from ck_mlperf.loadgen.settings import read_settings

    model = ROOT / "package" / "model-onnx-digits" / "digits.onnx"
    images = np.zeros((50_000, 28, 28, 3), np.uint8)
    with make_engine("null", model) as engine:
        enqueue = engine.enqueue

        def enqueue_slowly(rows: Sequence[int]) -> None:
            time.sleep(0.0012)
            enqueue(rows)

        engine.enqueue = enqueue_slowly
        run_test(read_settings(os.environ), engine, images, folder)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        run_here(Path(sys.argv[1]))
    else:
        make_logs()
