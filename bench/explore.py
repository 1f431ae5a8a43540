"""Whether a sweep that is killed twice ends complete, and what a sweep costs beyond its tests.

    make bench-explore

`ck explore loadgen` runs the embedded default over batch 1, 2, 4 ... 64 in two scenarios. It is
killed (SIGKILL) twice: once alone, while its benchmark runs on, and once with its benchmark. The
same command is given again each time.
Required: in the end every run is recorded exactly once, and none failed; beyond CK's own benchmark
command a run costs at most 0.5 s.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAME = "bench.explore"
ENTRY = Path(os.environ["CK_REPOS"]) / "local" / "experiment" / NAME
COMMAND = [
    *("ck", "explore", "loadgen", f"--name={NAME}", "--scenario=MultiStream,Offline"),
    *("--batch=1,2,4..64", "--repetitions=2", "--count=700"),
]
RUNS = 1 + 2 * 2 * 7
ALLOWED_S = 0.5


def main() -> int:
    remove_entry()
    began = time.perf_counter()
    print(f"$ {' '.join(COMMAND)}")
    run_until(RUNS // 3, with_benchmark=False)
    run_until(2 * RUNS // 3, with_benchmark=True)
    before = read_runs()
    elapsed_s, out = run_to_the_end()
    runs = read_runs()
    total_s = time.perf_counter() - began

    names = [name for name, _ in runs]
    complete = len(names) == len(set(names)) == RUNS and not list(ENTRY.glob("failed-*"))
    there = {name for name, _ in before}
    last = [record for name, record in runs if name not in there]
    tests_s = sum(record["timing"]["wall_s"] for record in last)
    commands_s = sum(map(float, re.findall(r", (\d+\.\d) s; (?:about|done)", out)))
    ck_s = (commands_s - tests_s) / len(last)
    own_s = (elapsed_s - commands_s) / len(last)
    print(
        f"{len(names)} of {RUNS} runs, {len(set(names))} different, killed twice, {total_s:.0f} s"
    )
    print(f"the last {len(last)} runs: {tests_s / len(last):.2f} s the test, {ck_s:.2f} s CK's "
          f"benchmark command around it, {own_s:.2f} s the sweep (start included)")  # fmt: skip
    remove_entry()
    ok = complete and own_s <= ALLOWED_S
    print("PASS" if ok else "FAIL", f"(complete, and at most {ALLOWED_S} s a run for the sweep)")
    return 0 if ok else 1


def run_until(count: int, with_benchmark: bool) -> None:
    """Start the sweep, and kill it in the run after the `count`th."""
    process = subprocess.Popen(
        COMMAND, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while len(list(ENTRY.glob("ckp-*.0001.json"))) < count:
        if process.poll() is not None:
            sys.exit(f"the sweep ended by itself, with exit code {process.returncode}")
        time.sleep(0.05)
    time.sleep(2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    if with_benchmark:
        for child in children:  # each leads a group of its own
            os.killpg(int(child), signal.SIGKILL)
    print(f"killed with {len(read_runs())} runs recorded" + " and its benchmark" * with_benchmark)


def run_to_the_end() -> tuple[float, str]:
    """Give the command again. Returns how long it took, and what it printed."""
    began = time.perf_counter()
    process = subprocess.run(COMMAND, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
                             text=True)  # fmt: skip
    if process.returncode:
        sys.exit(f"exit code {process.returncode}:\n{process.stdout[-3000:]}\n{process.stderr}")
    return time.perf_counter() - began, process.stdout


def read_runs() -> list[tuple[str, dict[str, Any]]]:
    """The entry's records, with the names of their runs."""
    records = []
    for path in ENTRY.glob("ckp-*.0001.json"):
        record = json.loads(path.read_text())["characteristics_list"][0]["run"]
        records.append((record["settings"]["ours"]["CK_EXPLORE_RUN"]["value"], record))
    return records


def remove_entry() -> None:
    if ENTRY.exists():
        subprocess.run(["ck", "rm", f"local:experiment:{NAME}", "--force"], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
