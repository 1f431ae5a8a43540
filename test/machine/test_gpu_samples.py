"""What the process that watches GPUs writes, and what a record makes of it."""

import io
import json
import os
import subprocess
import sys

import pytest

from ck_mlperf.machine.gpu_samples import summarise, write_samples
from ck_mlperf.machine.nvml import open_nvml

from ..fakes.driver import FakeGpu

SAMPLE = {
    "sm_clock_mhz": 1800,
    "memory_clock_mhz": 2619,
    "temperature_c": 60,
    "power_w": 650.5,
    "utilization_percent": 100,
    "clocks_event_reasons": 0x24,
}
OTHER = FakeGpu(sm_clock_mhz=1755, utilization=0, reasons=1, uuid=bytes(16))


def take(uuids, times=1):
    """The samples of so many rounds, of the driver that stands in."""
    output, rounds = io.StringIO(), iter(range(1, times + 1))
    with open_nvml() as nvml:
        write_samples(nvml, uuids, output, lambda: next(rounds) == times)
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_sample_of_each_gpu_a_round(put_driver):
    gpu = FakeGpu(sm_clock_mhz=1800, reasons=0x24)
    put_driver(gpu, OTHER)
    uuids = [gpu.spell_uuid(), OTHER.spell_uuid()]
    samples = take([*uuids, "GPU-unknown"], times=3)
    assert [sample["uuid"] for sample in samples] == uuids * 3
    assert samples[0] == SAMPLE | {"uuid": uuids[0]}
    assert samples[1]["utilization_percent"] == 0


def test_a_driver_that_knows_the_old_name_only(put_driver):
    put_driver(OTHER, missing=["nvmlDeviceGetCurrentClocksEventReasons"])
    assert take([OTHER.spell_uuid()])[0]["clocks_event_reasons"] == 1


def test_a_gpu_that_does_not_tell(put_driver):
    put_driver(
        OTHER,
        failing=["nvmlDeviceGetClockInfo", "nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage",
                 "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetCurrentClocksEventReasons"],
        missing=["nvmlDeviceGetCurrentClocksThrottleReasons"],
    )  # fmt: skip
    assert take([OTHER.spell_uuid()])[0] == dict.fromkeys(SAMPLE) | {"uuid": OTHER.spell_uuid()}


def test_a_run_s_samples_are_flushed_as_they_are_taken(put_driver):
    put_driver(OTHER)
    flushed = []

    class Output(io.StringIO):
        def flush(self):
            flushed.append(self.getvalue().count("\n"))

    with open_nvml() as nvml:
        write_samples(nvml, [OTHER.spell_uuid()], Output(), lambda: len(flushed) == 3)
    assert flushed == [1, 2, 3]


def test_the_process_needs_the_standard_library_and_nvml(library_environment, no_gpu):
    """Without a driver it ends by itself and says so."""
    process = subprocess.run(
        [sys.executable, "-S", "-m", "ck_mlperf.machine.gpu_samples", "GPU-a"],
        env=library_environment | {"LD_LIBRARY_PATH": os.environ["LD_LIBRARY_PATH"]},
        stdin=subprocess.PIPE,
        capture_output=True,
    )
    assert (process.returncode, process.stdout, process.stderr) == (1, b"", b"")


def test_figures_are_of_the_samples_at_work():
    idle = SAMPLE | {"sm_clock_mhz": 345, "utilization_percent": 0, "clocks_event_reasons": 1}
    at_work = [SAMPLE | {"sm_clock_mhz": clock} for clock in (1980, 1755, 1800)]
    found = summarise([idle, *at_work, idle])
    assert (found["samples"], found["busy_samples"]) == (5, 3)
    assert found["sm_clock_mhz"] == {"min": 1755, "median": 1800, "max": 1980}
    assert found["power_w"] == {"min": 650.5, "median": 650.5, "max": 650.5}
    assert found["clocks_event_reasons"] == {"sw_power_cap": 3, "sw_thermal_slowdown": 3}


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ([0, 0], {}),
        ([0x800, None], {"0x800": 1}),
        ([None, None], None),
        ([], None),
    ],
)
def test_reasons_for_lower_clocks(masks, expected):
    samples = [SAMPLE | {"clocks_event_reasons": mask} for mask in masks]
    assert summarise(samples)["clocks_event_reasons"] == expected


def test_what_is_not_known_counts_as_work():
    found = summarise([dict.fromkeys(SAMPLE), dict.fromkeys(SAMPLE) | {"memory_clock_mhz": 2619}])
    assert (found["samples"], found["busy_samples"]) == (2, 2)
    assert found["sm_clock_mhz"] is found["utilization_percent"] is None
    assert found["memory_clock_mhz"]["max"] == 2619
