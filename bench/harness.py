"""What the harness alone costs: LoadGen, our system under test, an engine that does nothing.

`make bench-harness`. By LoadGen's Python module (wheel) and by its C++ interface (native, which is
compiled first), against bench/naive_sut.py, in turn, each test in a process of its own; then eight
engines that keep the time of a GPU, by both interfaces. Exits 1 where a figure falls short.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.harness.native_build import build_once

ROOT = Path(__file__).resolve().parent.parent
LIBRARY_FOLDER = ROOT / ".ck" / "loadgen-native"
IMAGES = 1024
BATCH_SIZE = 256
OFFLINE_SAMPLES = 1_000_000
SINGLE_STREAM_QUERIES = 200_000
SINGLE_STREAM_TIMES = 3  # as many pairs: in one that lasts a second, whatever else runs shows
MEMORY_SAMPLES = 10_000_000
DEVICES = 8
DEVICE_SAMPLES_PER_S = 95_000  # what an H200 was submitted with, in int8
DEVICE_BATCH_SIZE = 2048

LEAST_SAMPLES_PER_S = 1.2e6
LEAST_OFFLINE_RATIO = 6.0
LEAST_SINGLE_STREAM_RATIO = 1.5
MOST_BYTES_PER_SAMPLE = {"wheel": 160, "native": 64}
LEAST_NATIVE_OFFLINE_RATIO = 2.0
LEAST_NATIVE_SINGLE_STREAM_RATIO = 1.0
LEAST_SHARE = 0.98

NAMES = {
    "wheel": "this harness, wheel",
    "native": "this harness, native",
    "naive": "one sample at a time",
}
PACED = "paced"
_RESULT_KEYS = {
    "Offline": "result_samples_per_second",
    "SingleStream": "result_qps_with_loadgen_overhead",
}


def run_child(kind: str, scenario: str, count: int) -> None:
    """One test; prints its rate (per second, LoadGen's own figure) and this process's memory."""
    import numpy as np
    from paced_engine import PacedEngine

    from ck_mlperf.loadgen.engines.null import NullEngine
    from ck_mlperf.loadgen.harness.native import NativeInterface
    from ck_mlperf.loadgen.loadgen_settings import build_loadgen_settings
    from ck_mlperf.loadgen.one_test import run_test
    from ck_mlperf.loadgen.settings import RunSettings

    batch_size = {"Offline": BATCH_SIZE, "SingleStream": 1, PACED: DEVICE_BATCH_SIZE}[scenario]
    engines = [NullEngine()]
    if scenario == PACED:
        engines = [PacedEngine(DEVICE_SAMPLES_PER_S) for _ in range(DEVICES)]
        scenario = "Offline"
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
        if kind == "naive":
            from naive_sut import run_naive

            test_settings = build_loadgen_settings(settings)
            run_naive(test_settings, engines[0], images, batch_size, folder)
        else:
            interface = NativeInterface(build_once(LIBRARY_FOLDER)) if kind == "native" else None
            run_test(settings, engines, images, Path(folder), interface)
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


def measure_all(
    kinds: Sequence[str], scenario: str, count: int, repetitions: int
) -> dict[str, list[float]]:
    """The rates of each kind, measured in turn; prints them."""
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(repetitions):
        for kind in kinds:
            rates[kind].append(measure(kind, scenario, count)["rate"])
    unit = "queries/s" if scenario == "SingleStream" else "samples/s"
    for kind in kinds:
        print(
            f"{scenario:13} {NAMES[kind]:21} best {max(rates[kind]):>11,.0f} {unit}   "
            f"median {statistics.median(rates[kind]):>11,.0f} {unit}",
            flush=True,
        )
    return rates


def find_ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of pairs."""
    return statistics.median(our / other for our, other in zip(ours, others, strict=True))


def measure_memory(kind: str, samples: int) -> float:
    """Bytes that a sample more of an Offline query takes; prints what they come from."""
    small = measure(kind, "Offline", OFFLINE_SAMPLES)
    large = measure(kind, "Offline", samples)
    print(
        f"Offline       {NAMES[kind]:21} {samples:,} samples: {large['rate']:,.0f} samples/s, "
        f"{large['rss_bytes'] / 1e9:.2f} GB; {OFFLINE_SAMPLES:,}: {small['rss_bytes'] / 1e9:.2f} GB"
    )
    return (large["rss_bytes"] - small["rss_bytes"]) / (samples - OFFLINE_SAMPLES)


def judge(what: str, value: float, least: float, form: str = ".2f") -> bool:
    is_met = value >= least
    print_verdict(is_met, what, format(value, form), f"at least {least:{form}}")
    return is_met


def print_verdict(is_met: bool, what: str, value: str, bound: str) -> None:
    print(f"{'PASS' if is_met else 'FAIL'}  {what:55} {value:>12}   wanted {bound}")


def find_native() -> bool:
    """Whether the native library is there, made where it was not; else prints why not."""
    try:
        build_once(LIBRARY_FOLDER)
    except UserError as error:
        print(f"LoadGen's C++ interface is NOT MEASURED: {error}")
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-harness", description=__doc__)
    add = parser.add_argument
    add("--repetitions", type=int, default=5, help="of each pair (default: 5)")
    add(
        "--samples",
        type=int,
        default=MEMORY_SAMPLES,
        help="size of the larger Offline test that memory is measured with (default: 10 million)",
    )
    add("--seconds", type=int, default=60, help="of the test of eight engines (default: 60)")
    add("--long-repetitions", type=int, default=1, help="of that test; 0: none (default: 1)")
    add("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, scenario, count = arguments.child
        run_child(kind, scenario, int(count))
        return 0

    ours = ["native", "wheel"] if find_native() else ["wheel"]
    kinds = [*ours, "naive"]
    offline = measure_all(kinds, "Offline", OFFLINE_SAMPLES, arguments.repetitions)
    single = measure_all(
        kinds, "SingleStream", SINGLE_STREAM_QUERIES, SINGLE_STREAM_TIMES * arguments.repetitions
    )
    memory = {kind: measure_memory(kind, arguments.samples) for kind in ours}
    most = DEVICES * DEVICE_SAMPLES_PER_S
    paced = {}
    if arguments.long_repetitions:
        paced = measure_all(ours, PACED, most * arguments.seconds, arguments.long_repetitions)
    print()
    rate = statistics.median(offline["wheel"])
    verdicts = [
        judge(f"Offline, batch {BATCH_SIZE}, samples/s, median", rate, LEAST_SAMPLES_PER_S, ",.0f"),
        judge(
            "Offline, wheel to one at a time, median of pairs",
            find_ratio(offline["wheel"], offline["naive"]),
            LEAST_OFFLINE_RATIO,
        ),
        judge(
            "SingleStream, wheel to one at a time, median of pairs",
            find_ratio(single["wheel"], single["naive"]),
            LEAST_SINGLE_STREAM_RATIO,
        ),
    ]
    for kind, bytes_per_sample in memory.items():
        bound = MOST_BYTES_PER_SAMPLE[kind]
        verdicts.append(bytes_per_sample <= bound)
        what = f"bytes of memory per sample, the whole process, {kind}"
        print_verdict(verdicts[-1], what, f"{bytes_per_sample:.0f}", f"at most {bound}")
    if "native" in ours:
        verdicts += [
            judge(
                "Offline, native to wheel, median of pairs",
                find_ratio(offline["native"], offline["wheel"]),
                LEAST_NATIVE_OFFLINE_RATIO,
            ),
            judge(
                "SingleStream, native to wheel, median of pairs",
                find_ratio(single["native"], single["wheel"]),
                LEAST_NATIVE_SINGLE_STREAM_RATIO,
            ),
        ]
    for kind, rates in paced.items():
        what = f"{DEVICES} engines of {DEVICE_SAMPLES_PER_S:,} samples/s, share, {kind}"
        share = statistics.median(rates) / most
        if kind == "native":
            verdicts.append(judge(what, share, LEAST_SHARE, ".3f"))
        else:
            print(f"      {what:55} {share:>12.3f}")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
