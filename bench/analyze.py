"""What `ck analyze loadgen` takes for many points: read, flagged, shown, queried, exported.

    make bench-analyze

One run of the embedded default is recorded by CK, unless --point= names a file ckp-*.0001.json.
Copies of it with other figures are written to a temporary folder; the time and the memory are those
of a process that does all of the above with them, the fastest of three: what else the machine does
only adds to it.
Required: 10,000 points, as CK calls a recorded file, in at most 5 s and 500 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "image-classification-tensorrt-loadgen-py"
POINTS = 10_000
REPETITIONS = 3
ATTEMPTS = 3
PER_EXPERIMENT = 500
MOST_S = 5.0
MOST_MB = 500.0


def measure(repository: Path) -> None:
    """All steps once; prints what each took, and the most memory."""
    start = time.perf_counter()
    import io
    import resource

    from rich.console import Console

    from ck_mlperf.analyze.rows import read_runs
    from ck_mlperf.analyze.runs import group_points
    from ck_mlperf.analyze.show import show_points
    from ck_mlperf.analyze.table import export, query

    marks = [("import", time.perf_counter())]
    runs = read_runs([repository])
    marks.append(("read", time.perf_counter()))
    shown = io.StringIO()
    show_points(runs, Console(file=shown, width=80, highlight=False))
    marks.append(("flag, show", time.perf_counter()))
    query(runs, "SELECT * FROM points ORDER BY samples_per_second DESC")
    marks.append(("table, query", time.perf_counter()))
    export(runs, repository / "runs.duckdb")
    marks.append(("table, export", time.perf_counter()))
    steps = {}
    for name, end in marks:
        steps[name] = end - start
        start = end
    counts = {"runs": len(runs), "points": len(group_points(runs))}
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"counts": counts, "steps": steps, "rss_mb": rss_mb}))


def record_point() -> Any:
    """A run of the program as CK records it: the content of its file."""
    name = "bench-analyze"
    command = [
        *("ck", "benchmark", f"program:{PROGRAM}", "--repetitions=1", "--env.CK_SILENT_MODE"),
        *("--env.CK_LOADGEN_MODE=PerformanceOnly", "--env.CK_LOADGEN_SCENARIO=MultiStream"),
        *("--env.CK_LOADGEN_COUNT_OVERRIDE=700", "--record", "--record_repo=local"),
        *(f"--record_uoa={name}", "--skip_print_timers", "--skip_stat_analysis"),
        *("--process_multi_keys", "--sleep=0"),
    ]
    run_command(command)
    (path,) = Path(os.environ["CK_REPOS"], "local", "experiment", name).glob("ckp-*.0001.json")
    point = json.loads(path.read_bytes())
    run_command(["ck", "rm", f"local:experiment:{name}", "--force"])
    return point


def run_command(command: list[str]) -> None:
    process = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{process.stdout[-3000:]}\n{process.stderr}")


def write_points(point: dict[str, Any], count: int, repository: Path) -> int:
    """Write copies of a recorded point with other loads and figures. Returns the bytes written."""
    generator = random.Random(0)
    run = point["characteristics_list"][0]["run"]
    point["characteristics_list"] = [{"run": run}]
    speed, latencies = run["throughput"]["samples_per_second"], dict(run["latencies_ns"])
    written = 0
    for number in range(count):
        factor = generator.gauss(1, 0.02)
        run["engine"]["batch"] = run["settings"]["ours"]["CK_BATCH_SIZE"]["value"] = (
            1 + number // REPETITIONS
        )
        run["throughput"]["samples_per_second"] = speed * factor
        run["latencies_ns"] = {name: round(ns / factor) for name, ns in latencies.items()}
        entry = repository / "experiment" / f"sweep-{number // PER_EXPERIMENT}"
        entry.mkdir(parents=True, exist_ok=True)
        # As CK writes it.
        text = json.dumps(point, indent=2, sort_keys=True) + "\n"
        (entry / f"ckp-{number:016x}.0001.json").write_text(text)
        written += len(text)
    return written


def time_child(repository: Path) -> tuple[float, dict[str, Any]]:
    """The seconds that a process took for `measure`, and what it printed."""
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, __file__, f"--child={repository}"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return time.perf_counter() - start, json.loads(process.stdout)


def judge(what: str, value: float, most: float, unit: str) -> bool:
    is_met = value <= most
    print(f"{'PASS' if is_met else 'FAIL'}  {what:10} {value:8.2f} {unit}, at most {most:g} {unit}")
    return is_met


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-analyze", description=__doc__)
    parser.add_argument("--points", type=int, default=POINTS, help=f"default: {POINTS:,}")
    parser.add_argument("--point", type=Path, help="a recorded point to copy")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(arguments.child)
        return 0
    point = json.loads(arguments.point.read_bytes()) if arguments.point else record_point()
    with tempfile.TemporaryDirectory() as folder:
        written = write_points(point, arguments.points, Path(folder))
        print(f"{arguments.points:,} files, {written / 1e6:.0f} MB")
        fastest = min((time_child(Path(folder)) for _ in range(ATTEMPTS)), key=lambda at: at[0])
    elapsed, measured = fastest
    for name, seconds in measured["steps"].items():
        print(f"  {name:14} {seconds:5.2f} s")
    print("  " + ", ".join(f"{count:,} {name}" for name, count in measured["counts"].items()))
    verdicts = [
        judge("wall time", elapsed, MOST_S, "s"),
        judge("memory", measured["rss_mb"], MOST_MB, "MB"),
    ]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
