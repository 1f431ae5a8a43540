import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from ck_mlperf.machine.conditions import Watch, read_clock_offset_s
from ck_mlperf.machine.facts import Conditions

from ..fakes.driver import MIB, UNKNOWN_MEMORY, FakeGpu

HERE = Path(__file__).resolve().parent
OWN, OTHER = (os.getpid(), 400 * MIB), (999999999, 512 * MIB)
GPU, SECOND = FakeGpu(processes=[OWN]), FakeGpu(uuid=bytes(16), processes=[OWN])
SAMPLE = {
    "uuid": GPU.spell_uuid(),
    "sm_clock_mhz": 1800,
    "memory_clock_mhz": 2619,
    "temperature_c": 60,
    "power_w": 650.5,
    "utilization_percent": 100,
    "clocks_event_reasons": 0x24,
}
UNTIL_THE_END = "exec cat > /dev/null"  # that is, until stdin is closed
ONE = f"echo {shlex.quote(json.dumps(SAMPLE))}"


@pytest.fixture
def sampler(tmp_path):
    """sampler(line, ...): a command that runs these lines of a shell, as a sampler."""

    def write(*lines) -> list[str]:
        script = tmp_path / "sampler"
        script.write_text("\n".join(lines))
        return ["sh", str(script)]

    return write


def say(*samples) -> str:
    return "\n".join(f"echo {shlex.quote(json.dumps(sample))}" for sample in samples)


def watch(*devices, **options) -> dict:
    """The conditions of some idle time, checked against their types."""
    with Watch(devices, **options) as watched:
        pass
    return check(watched)


def check(watched: Watch) -> dict:
    conditions = json.loads(json.dumps(watched.conditions, allow_nan=False))
    assert msgspec.to_builtins(msgspec.convert(conditions, Conditions)) == conditions
    assert conditions["cpu"]["wall_s"] >= 0
    return conditions


def list_children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_a_gpu_at_work(put_driver, sampler):
    put_driver(FakeGpu(processes=[OWN, OTHER, OTHER]))
    lines = say(*(SAMPLE | {"sm_clock_mhz": clock} for clock in (1701, 1702, 1709)))
    children, threads = list_children(), threading.active_count()
    with Watch([0], sampler(lines, UNTIL_THE_END)) as watched:
        assert threading.active_count() == threads
    assert list_children() <= children
    (gpu,) = check(watched)["gpus"]
    assert (gpu["cuda_device"], gpu["samples"], gpu["busy_samples"]) == (0, 3, 3)
    assert gpu["sm_clock_mhz"] == {"min": 1701, "median": 1702, "max": 1709}
    assert gpu["clocks_event_reasons"] == {"sw_power_cap": 3, "sw_thermal_slowdown": 3}
    assert gpu["other_processes_before"] == {"count": 2, "memory_mib": 1024}


@pytest.mark.parametrize("step_s", [0.0, 3600.25, -7.5])
def test_a_step_of_the_wall_clock(step_s):
    with Watch([], read_clock=iter([1e9, 1e9 + step_s]).__next__) as watched:
        pass
    assert check(watched)["clock_step_s"] == step_s


def test_a_clock_that_nobody_sets():
    before = read_clock_offset_s()
    time.sleep(0.1)
    assert read_clock_offset_s() == pytest.approx(before, abs=1e-3)
    assert watch()["clock_step_s"] == 0.0


def test_the_test_begins_after_the_first_sample(put_driver, sampler, tmp_path):
    """The sampler's start takes some of a processor."""
    put_driver(GPU)
    begun = tmp_path / "begun"
    with Watch([0], sampler("sleep 0.1", f"touch {begun}", ONE, UNTIL_THE_END)):
        assert begun.exists()


def test_it_is_told_where_the_package_is_and_which_gpus(put_driver, sampler, tmp_path):
    put_driver(GPU, SECOND)
    told = tmp_path / "told"
    watch(1, 0, sampler=sampler(f'echo "$PYTHONPATH" "$@" > {told}'))
    folder, *uuids = told.read_text().split()
    assert (Path(folder) / "ck_mlperf" / "machine" / "gpu_samples.py").exists()
    assert uuids == [SECOND.spell_uuid(), GPU.spell_uuid()]


def test_without_a_driver_the_real_one_takes_no_samples(put_driver, no_gpu):
    put_driver(GPU)  # of this process alone
    (gpu,) = watch(0)["gpus"]
    assert (gpu["samples"], gpu["sm_clock_mhz"]) == (0, None)
    assert gpu["other_processes_after"] == {"count": 0, "memory_mib": 0}


def test_several_gpus(put_driver, sampler):
    put_driver(GPU, SECOND)
    lines = say(SAMPLE, SAMPLE | {"uuid": SECOND.spell_uuid(), "sm_clock_mhz": 1700}, SAMPLE)
    first, second, third = watch(0, 1, 2, sampler=sampler(lines, UNTIL_THE_END))["gpus"]
    assert [gpu["cuda_device"] for gpu in (first, second, third)] == [0, 1, 2]
    assert (first["samples"], second["samples"]) == (2, 1)
    assert second["sm_clock_mhz"]["max"] == 1700
    assert (third["samples"], third["sm_clock_mhz"]) == (0, None)  # CUDA does not find it
    assert third["clocks_event_reasons"] is third["other_processes_before"] is None


def test_a_line_that_is_cut_off(put_driver, sampler):
    put_driver(GPU)
    lines = say(SAMPLE, SAMPLE), """printf '{"uuid": "GPU-a0a'""", UNTIL_THE_END
    assert watch(0, sampler=sampler(*lines))["gpus"][0]["samples"] == 2


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ([OWN], {"count": 0, "memory_mib": 0}),
        ([OWN, OTHER, OTHER], {"count": 2, "memory_mib": 1024}),
        ([OWN, (5, UNKNOWN_MEMORY)], {"count": 1, "memory_mib": None}),
        # In a container the numbers are the host's: one of these is ours.
        ([(31337, 400 * MIB)], {"count": 0, "memory_mib": 0}),
        ([(31337, 400 * MIB), (31338, 500 * MIB)], {"count": 1, "memory_mib": None}),
        # Not even ours is listed: then others may be there as well.
        ([], None),
    ],
)
def test_other_processes(put_driver, sampler, processes, expected):
    put_driver(FakeGpu(processes=processes), SECOND)
    (gpu,) = watch(0, sampler=sampler())["gpus"]
    assert gpu["other_processes_before"] == gpu["other_processes_after"] == expected


def test_processes_are_counted_before_and_after(put_driver, sampler):
    driver = put_driver(FakeGpu(processes=[OWN, OTHER]))
    with Watch([0], sampler()) as watched:
        driver.gpus[0].processes.pop()
    (gpu,) = check(watched)["gpus"]
    assert gpu["other_processes_before"]["count"] == 1
    assert gpu["other_processes_after"]["count"] == 0


@pytest.mark.parametrize("how", ["failing", "missing"])
def test_processes_that_nvml_does_not_list(put_driver, sampler, how):
    put_driver(GPU, **{how: ["nvmlDeviceGetComputeRunningProcesses_v3"]})
    assert watch(0, sampler=sampler())["gpus"][0]["other_processes_before"] is None


def test_an_nvml_that_does_not_work(put_driver, sampler, tmp_path):
    put_driver(GPU, failing=["nvmlInit_v2"])
    begun = tmp_path / "begun"
    assert watch(0, sampler=sampler(f"touch {begun}"))["gpus"] == []
    assert not begun.exists()


def test_without_gpus_nothing_is_asked(put_driver, sampler, tmp_path):
    driver = put_driver(GPU)
    begun = tmp_path / "begun"
    conditions = watch(sampler=sampler(f"touch {begun}"))
    assert conditions["gpus"] == []
    assert conditions["gpu_interval_ms"] == 1000
    assert watch(2, sampler=sampler(f"touch {begun}"))["gpus"] == []  # there is no third
    assert not begun.exists()
    assert "nvmlInit_v2" not in driver.calls


@pytest.mark.parametrize("end", ["kill -SEGV $$", "exit 1", "exit 0"])
def test_a_sampler_that_ends_during_the_test(put_driver, sampler, end):
    put_driver(GPU)
    (gpu,) = watch(0, sampler=sampler(ONE, end))["gpus"]
    assert gpu["samples"] == 1
    assert gpu["sm_clock_mhz"]["median"] == 1800


@pytest.mark.parametrize("lines", [["exit 1"], ["kill -SEGV $$"], ["echo no sample", "exit 9"]])
def test_a_sampler_that_takes_none(put_driver, sampler, lines):
    put_driver(GPU)
    assert watch(0, sampler=sampler(*lines))["gpus"][0]["samples"] == 0


def test_a_sampler_that_cannot_be_started(put_driver):
    put_driver(GPU)
    assert watch(0, sampler=["/no/such/program"])["gpus"][0]["samples"] == 0


@pytest.mark.parametrize("line", ["", ONE])
@pytest.mark.parametrize("trap", ["", "trap '' TERM INT"])
def test_a_sampler_that_hangs_is_killed(put_driver, sampler, trap, line):
    put_driver(GPU)
    children = list_children()
    hangs = sampler(line, trap, "while :; do sleep 0.01; done")
    (gpu,) = watch(0, sampler=hangs, patience_s=0.1)["gpus"]
    assert gpu["samples"] == (line == ONE)
    assert list_children() <= children


def test_it_ends_where_the_test_fails(put_driver, sampler):
    put_driver(GPU)
    children = list_children()

    def fail() -> None:
        with Watch([0], sampler(ONE, UNTIL_THE_END)):
            assert list_children() > children
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list_children() <= children


def test_the_sampler_ends_with_a_run_that_is_killed(sampler, tmp_path, library_environment):
    ended = tmp_path / "ended"
    command = sampler(ONE, "cat > /dev/null", f"echo > {ended}")
    run = subprocess.Popen(
        [sys.executable, HERE / "watch_until_killed.py", *command],
        stdout=subprocess.PIPE,
        env=library_environment,
    )
    with run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"watching\n"
        assert not ended.exists()
        run.kill()
    deadline = time.monotonic() + 60
    while not ended.exists():
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.01)


def test_this_process_and_others():
    burner = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    try:
        used = Path(f"/proc/{burner.pid}/stat")
        with Watch(()) as watched:
            begin, own_begin = read_ticks(used), time.process_time()
            while read_ticks(used) < begin + 10 or time.process_time() < own_begin + 0.1:
                pass
    finally:
        burner.send_signal(signal.SIGKILL)
        burner.wait()
    cpu = check(watched)["cpu"]
    assert 0.1 <= cpu["own_core_s"] <= cpu["wall_s"] + 0.1
    if cpu["busy_core_s"] is None:
        pytest.skip("NOT RUN: /proc/stat counts nothing here")
    assert cpu["cores"] == os.cpu_count()
    assert cpu["busy_core_s"] - cpu["own_core_s"] > 0.05


def read_ticks(path: Path) -> int:
    return int(path.read_text().rpartition(")")[2].split()[11])


class FakeKernel:
    """A folder with /proc and /sys/devices/system/cpu, as files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/loadavg", "0.50 0.40 0.30 1/234 5678")

    def write(self, name: str, content: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")

    def write_core(self, number: int, package: int, throttles: tuple[int, int], mhz: int) -> None:
        folder = f"sys/devices/system/cpu/cpu{number}"
        self.write(f"{folder}/thermal_throttle/core_throttle_count", str(throttles[0]))
        self.write(f"{folder}/thermal_throttle/package_throttle_count", str(throttles[1]))
        self.write(f"{folder}/topology/physical_package_id", str(package))
        self.write(f"{folder}/cpufreq/scaling_cur_freq", str(mhz * 1000))


@pytest.fixture
def kernel(tmp_path):
    return FakeKernel(tmp_path / "root")


def test_what_the_kernel_counts(kernel):
    cores = "\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\nctxt 5"
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    # user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice
    kernel.write("proc/stat", f"cpu  1000 10 200 90000 50 3 4 70 500 0{cores}")
    for core, package in ((0, 0), (1, 0), (2, 1), (3, 1)):
        kernel.write_core(core, package, (core, 10 * package), 3000 + core)
    kernel.write("sys/devices/system/cpu/cpufreq/boost", "1")
    with Watch((), root=kernel.root) as watched:
        kernel.write("proc/stat", f"cpu  1400 20 290 90100 40 4 6 73 800 0{cores}")
        kernel.write_core(1, 0, (6, 2), 2000)
        kernel.write_core(3, 1, (4, 13), 2100)
        kernel.write_core(2, 1, (2, 13), 2900)
    cpu = check(watched)["cpu"]
    assert cpu["cores"] == 2
    assert cpu["busy_core_s"] == pytest.approx(503 * tick_s)
    assert cpu["steal_core_s"] == pytest.approx(3 * tick_s)
    assert (cpu["core_throttles"], cpu["package_throttles"]) == (5 + 1, 2 + 3)
    assert (cpu["clock_before_mhz"], cpu["clock_after_mhz"]) == (3003, 3000)
    assert (cpu["load_before"], cpu["load_after"]) == (0.5, 0.5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cpu",
        "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0",  # a sandbox
        "cpu  1 2 3 4",
        "cpu  many 1 1 1 1 1 1 1",
        "\0\0",
    ],
)
def test_a_kernel_that_does_not_tell(kernel, text):
    kernel.write("proc/stat", text)
    kernel.write("proc/loadavg", "no load here")
    kernel.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "<unknown>")
    kernel.write("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "many")
    cpu = watch(root=kernel.root)["cpu"]
    known = {"wall_s", "own_core_s"}
    assert {name for name, value in cpu.items() if value is not None} == known


def test_no_kernel_to_be_read(tmp_path):
    cpu = watch(root=tmp_path)["cpu"]
    assert cpu["load_before"] is cpu["busy_core_s"] is cpu["cores"] is None


def test_counters_that_went_back(kernel):
    kernel.write("proc/stat", "cpu  1000 10 200 90000 50 3 4 70\ncpu0 1")
    kernel.write_core(0, 0, (5, 5), 3000)
    with Watch((), root=kernel.root) as watched:
        kernel.write("proc/stat", "cpu  900 10 200 90000 50 3 4 60\ncpu0 1")
        kernel.write_core(0, 0, (4, 5), 3000)
    cpu = check(watched)["cpu"]
    assert cpu["busy_core_s"] is cpu["steal_core_s"] is cpu["core_throttles"] is None
    assert cpu["package_throttles"] == 0
