"""What this repository's hooks cost: `ck run` against CK's own floor and the program's time.

    make bench-ck

Three things are timed in turn, everything being resolved already:
  run      `ck run` of the program, a 1 s Offline test of the digits network
  program  `run.py job.json`, the same test without CK
  floor    `ck run` of a program that does nothing, with 8 deps that CK resolves itself
Required: the medians' run - program - floor is at most 0.5 s.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "image-classification-tensorrt-loadgen-py"
REPETITIONS = 7
ALLOWED_S = 0.5
FLAGS = [
    "--env.CK_LOADGEN_MODE=PerformanceOnly",
    "--env.CK_LOADGEN_SCENARIO=Offline",
    "--env.CK_LOADGEN_COUNT_OVERRIDE=2000",
]
LIBRARIES = [
    "numpy",
    "loadgen",
    "onnxruntime",
    "onnx",
    "opencv",
    "ck-mlperf",
]


def time_command(command: list[str], **options) -> float:
    start = time.perf_counter()
    process = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options
    )
    elapsed = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{process.stdout[-3000:]}\n{process.stderr}")
    return elapsed


def write_floor(folder: Path) -> None:
    """A CK repository with one program that does nothing, with 8 deps."""
    deps = {"python": {"local": "yes", "sort": 1, "tags": "compiler,lang-python"}}
    for number, name in enumerate(LIBRARIES, 2):
        deps[name] = {"local": "yes", "sort": number, "tags": f"lib,python-package,{name}"}
    meta = {
        "no_compile": "yes",
        "no_target_file": "yes",
        "process_in_tmp": "yes",
        "program": "yes",
        "run_cmds": {"default": {"run_time": {"run_cmd_main": "true"}}},
        "run_deps": deps,
        "tags": ["ck-floor"],
    }
    uid = "00000000000f1002"
    files = {
        ".ckr.json": json.dumps({"data_uid": "00000000000f1001", "data_uoa": "ck-floor",
                                 "data_alias": "ck-floor", "data_name": "ck-floor", "dict": {}}),
        ".cm/alias-a-program": "b0ac08fe1d3c2615\n",
        ".cm/alias-u-b0ac08fe1d3c2615": "program\n",
        "program/.cm/alias-a-ck-floor": uid + "\n",
        f"program/.cm/alias-u-{uid}": "ck-floor\n",
        "program/ck-floor/.cm/meta.json": json.dumps(meta),
    }  # fmt: skip
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def main() -> int:
    if "CK_REPOS" not in os.environ or not shutil.which("ck"):
        sys.exit('error: no CK here; run `make bench-ck`, or first: eval "$(make -s ck-env)"')
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "src"))
    with tempfile.TemporaryDirectory() as folder:
        write_floor(Path(folder))
        time_command(["ck", "import", "repo", f"--path={folder}", "--quiet"])
        try:
            commands = {
                "run": (["ck", "run", f"program:{PROGRAM}", *FLAGS], {}),
                "program": (
                    [sys.executable, "../run.py", "job.json"],
                    {"cwd": ROOT / "program" / PROGRAM / "tmp", "env": environment},
                ),
                "floor": (["ck", "run", "program:ck-floor"], {}),
            }
            times: dict[str, list[float]] = {name: [] for name in commands}
            for command, options in commands.values():  # once for what is not resolved yet
                time_command(command, **options)
            for _ in range(REPETITIONS):
                for name, (command, options) in commands.items():
                    times[name].append(time_command(command, **options))
        finally:
            time_command(["ck", "rm", "repo:ck-floor", "--force", "--quiet"])
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"{name:8} median {median[name]:5.2f} s, {min(values):.2f} to {max(values):.2f} s")
    over = median["run"] - median["program"] - median["floor"]
    passed = over <= ALLOWED_S
    verdict = "PASS" if passed else "FAIL"
    print(f"run - program - floor = {over:.2f} s, at most {ALLOWED_S} s: {verdict}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
