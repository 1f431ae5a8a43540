"""What the harness alone costs: LoadGen, our system under test, an engine that does nothing.

`make bench-harness`. Against bench/naive_sut.py, in turn, each test in a process of its own.
Exits 1 where a figure falls short.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = 1024
BATCH_SIZE = 256
OFFLINE_SAMPLES = 1_000_000
SINGLE_STREAM_QUERIES = 200_000
MEMORY_SAMPLES = 10_000_000

LEAST_SAMPLES_PER_S = 1.2e6
LEAST_OFFLINE_RATIO = 6.0
LEAST_SINGLE_STREAM_RATIO = 1.5
MOST_BYTES_PER_SAMPLE = 160

_RESULT_KEYS = {
    "Offline": "result_samples_per_second",
    "SingleStream": "result_qps_with_loadgen_overhead",
}


def run_child(kind: str, scenario: str, count: int) -> None:
    """One test; prints its rate (per second, LoadGen's own figure) and this process's memory."""
    import numpy as np
    from loadgen_helper.engines.null import NullEngine
    from loadgen_helper.run import build_loadgen_settings, run_test
    from loadgen_helper.settings import RunSettings

    batch_size = BATCH_SIZE if scenario == "Offline" else 1
    settings = RunSettings(
        scenario=scenario,
        mode="PerformanceOnly",
        batch_size=batch_size,
        dataset_size=IMAGES,
        buffer_size=IMAGES,
        count_override=count,
    )
    images = np.zeros((IMAGES, 1, 1, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        if kind == "ours":
            with NullEngine() as engine:
                run_test(settings, engine, images, Path(folder))
        else:
            from naive_sut import run_naive

            test_settings = build_loadgen_settings(settings)
            run_naive(test_settings, NullEngine(), images, batch_size, folder)
        rate = read_result(Path(folder), _RESULT_KEYS[scenario])
    rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"rate": rate, "rss_bytes": rss_bytes}))


def read_result(log_dir: Path, key: str) -> float:
    """A figure of LoadGen's detail log."""
    for line in (log_dir / "mlperf_log_detail.txt").read_text().splitlines():
        record = json.loads(line.removeprefix(":::MLLOG "))
        if record["key"] == key:
            return float(record["value"])
    raise KeyError(key)


def measure(kind: str, scenario: str, count: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", kind, scenario, str(count)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, float] = json.loads(output)
    return result


def compare(scenario: str, count: int, repetitions: int) -> tuple[float, float]:
    """Measure both systems in turn and print it; our median rate and the median ratio."""
    ours, naive = [], []
    for _ in range(repetitions):
        ours.append(measure("ours", scenario, count)["rate"])
        naive.append(measure("naive", scenario, count)["rate"])
    unit = "samples/s" if scenario == "Offline" else "queries/s"
    for name, rates in (("this harness", ours), ("one sample at a time", naive)):
        print(
            f"{scenario:13} {name:21} best {max(rates):>11,.0f} {unit}   "
            f"median {statistics.median(rates):>11,.0f} {unit}"
        )
    ratios = [ours_rate / naive_rate for ours_rate, naive_rate in zip(ours, naive, strict=True)]
    return statistics.median(ours), statistics.median(ratios)


def judge(what: str, value: str, bound: str, is_met: bool) -> bool:
    print(f"{'PASS' if is_met else 'FAIL'}  {what:45} {value:>18}   wanted {bound}")
    return is_met


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-harness", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="of each pair (default: 5)")
    parser.add_argument(
        "--samples",
        type=int,
        default=MEMORY_SAMPLES,
        help="size of the larger Offline test that memory is measured with (default: 10 million)",
    )
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, scenario, count = arguments.child
        run_child(kind, scenario, int(count))
        return 0

    rate, ratio = compare("Offline", OFFLINE_SAMPLES, arguments.repetitions)
    _, single_ratio = compare("SingleStream", SINGLE_STREAM_QUERIES, arguments.repetitions)
    small = measure("ours", "Offline", OFFLINE_SAMPLES)
    large = measure("ours", "Offline", arguments.samples)
    growth = large["rss_bytes"] - small["rss_bytes"]
    bytes_per_sample = growth / (arguments.samples - OFFLINE_SAMPLES)
    print(
        f"Offline       {arguments.samples:,} samples: {large['rate']:,.0f} samples/s, "
        f"{large['rss_bytes'] / 1e9:.2f} GB; {OFFLINE_SAMPLES:,}: {small['rss_bytes'] / 1e9:.2f} GB"
    )
    print()
    verdicts = [
        judge(
            f"Offline, batch {BATCH_SIZE}, median",
            f"{rate:,.0f} samples/s",
            f"at least {LEAST_SAMPLES_PER_S:,.0f}",
            rate >= LEAST_SAMPLES_PER_S,
        ),
        judge(
            "Offline, ratio, median of pairs",
            f"{ratio:.2f}",
            f"at least {LEAST_OFFLINE_RATIO}",
            ratio >= LEAST_OFFLINE_RATIO,
        ),
        judge(
            "SingleStream, ratio, median of pairs",
            f"{single_ratio:.2f}",
            f"at least {LEAST_SINGLE_STREAM_RATIO}",
            single_ratio >= LEAST_SINGLE_STREAM_RATIO,
        ),
        judge(
            "memory per sample, the whole process",
            f"{bytes_per_sample:.0f} bytes",
            f"at most {MOST_BYTES_PER_SAMPLE}",
            bytes_per_sample <= MOST_BYTES_PER_SAMPLE,
        ),
    ]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
