"""How many runs the search for the largest VALID load takes, compared with a grid.

    make bench-search

`ck explore loadgen --find=max` runs the embedded default in Server, 2 s a probe, and finds the
highest rate that LoadGen calls VALID, to 2%. A grid of the same resolution runs each rate from the
lowest to the highest that was probed, once, and the same repeats at the edge.
Required: an answer, with at most a third of the grid's runs (including the one that measures the
start).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "bench.search"
ENTRY = Path(os.environ["CK_REPOS"]) / "local" / "experiment" / NAME
COMMAND = [
    *("ck", "explore", "loadgen", "--find=max", "--scenario=Server"),
    *("--duration=2", "--resolution=0.02", f"--name={NAME}"),
]


def main() -> int:
    remove_entry()
    print(f"$ {' '.join(COMMAND)}")
    began = time.perf_counter()
    process = subprocess.run(
        COMMAND, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    total_s = time.perf_counter() - began
    said = process.stdout[process.stdout.find("Server, judged") :]
    print(said, end="")
    grid = re.search(r"at the edge, takes (\d+)", said)
    if process.returncode or not grid:
        sys.exit(f"exit code {process.returncode}:\n{process.stderr}")
    runs = len(list(ENTRY.glob("ckp-*.0001.json")))
    remove_entry()
    ok = runs <= int(grid[1]) / 3
    print(
        f"{'PASS' if ok else 'FAIL'}  {runs} runs in {total_s:.0f} s, {runs / int(grid[1]):.2f} of "
        f"the grid's {grid[1]}, wanted at most a third"
    )
    return 0 if ok else 1


def remove_entry() -> None:
    if ENTRY.exists():
        subprocess.run(["ck", "rm", f"local:experiment:{NAME}", "--force"], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
