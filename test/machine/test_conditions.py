import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import jsonschema
import pytest

import ck_mlperf.machine.conditions as module
from ck_mlperf.machine.conditions import Watch

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "src/ck_mlperf/results/record.schema.json").read_text())
UUIDS = {0: "GPU-a", 1: "GPU-b", 2: None}
OWN, OTHER = f"GPU-a, {os.getpid()}, 400", "GPU-a, 999999999, 512"

# What a driver of today does: several lines a sample, and no end.
SMI = """
case "$*" in
*--query-compute-apps=gpu_uuid,pid,used_memory*) {apps} ;;
*clocks_event_reasons.active*) {event} ;;
*clocks_throttle_reasons.active*) {throttle} ;;
*) exit 2 ;;
esac
"""
UNKNOWN = "echo 'Field is not a valid field to query.'; exit 2"
# Loops where it is asked to; `$n` counts.
LOOP = """n=0; while :; do n=$((n + 1)); {lines}
case "$*" in *-lms*) sleep 0.02 ;; *) exit 0 ;; esac; done"""
WORKING = LOOP.format(
    lines='echo "GPU-b, $((1700 + n)), 2619, 60, 650.50, 100, 0x0000000000000024"'
)


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A stand-in first on PATH, for GPUs 0, 1 and one that cannot be found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(module, "find_gpu_uuid", UUIDS.get)
    monkeypatch.setattr(module, "_END_S", 0.3)

    def write(apps=f"echo '{OWN}'", event=WORKING, throttle=UNKNOWN):
        path = folder / "nvidia-smi"
        path.write_text("#!/bin/sh\n" + SMI.format(apps=apps, event=event, throttle=throttle))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


def watch(*devices, seconds=0.2) -> dict:
    """The conditions of some idle time, checked against the schema."""
    with Watch(devices) as watched:
        time.sleep(seconds)
    conditions = json.loads(json.dumps(watched.conditions, allow_nan=False))
    jsonschema.validate(conditions, SCHEMA["properties"]["conditions"])
    assert conditions["cpu"]["wall_s"] >= seconds
    return conditions


def list_children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_samples_of_a_gpu_at_work(nvidia_smi):
    nvidia_smi(apps=f"echo '{OWN}'; echo '{OTHER}'; echo '{OTHER[:-3]}88'; echo 'GPU-b, 1, 7'")
    children, threads = list_children(), threading.active_count()
    with Watch([1]) as watched:
        assert threading.active_count() == threads
        time.sleep(0.2)
    assert list_children() <= children
    (gpu,) = watched.conditions["gpus"]
    assert gpu["cuda_device"] == 1
    assert gpu["samples"] == gpu["busy_samples"] >= 2
    clock = gpu["sm_clock_mhz"]
    assert clock == {
        "min": 1701,
        "median": 1700.5 + gpu["samples"] / 2,
        "max": 1700 + gpu["samples"],
    }
    assert gpu["memory_clock_mhz"]["median"] == 2619
    assert gpu["temperature_c"]["max"] == 60
    assert gpu["power_w"]["min"] == 650.5
    assert gpu["utilization_percent"]["median"] == 100
    expected = {"sw_power_cap": gpu["samples"], "sw_thermal_slowdown": gpu["samples"]}
    assert gpu["clocks_event_reasons"] == expected
    assert gpu["other_processes_before"] == gpu["other_processes_after"]


def test_nvidia_smi_is_waited_for_once(nvidia_smi):
    """Each start of it may take a second, and the test waits for them."""
    nvidia_smi(apps=f"sleep 0.5; echo '{OWN}'", event=f"sleep 0.5; {WORKING}")
    with contextlib.ExitStack() as opened:
        started = time.perf_counter()
        watched = opened.enter_context(Watch([0, 1]))
        took = time.perf_counter() - started
    assert 0.5 <= took < 0.9
    assert watched.conditions["gpus"][0]["other_processes_before"] == {"count": 0, "memory_mib": 0}
    assert watched.conditions["gpus"][1]["samples"] > 0


def test_several_gpus(nvidia_smi):
    line = "echo 'GPU-{}, 1800, 2619, 60, 650.50, 100, 0x0'"
    nvidia_smi(event=LOOP.format(lines=f"{line.format('a')}; {line.format('b')}"))
    first, second, third = watch(0, 1, 2)["gpus"]
    assert [gpu["cuda_device"] for gpu in (first, second, third)] == [0, 1, 2]
    assert abs(first["samples"] - second["samples"]) <= 1
    assert first["clocks_event_reasons"] == {}
    assert (third["samples"], third["sm_clock_mhz"]) == (0, None)
    assert third["clocks_event_reasons"] is third["other_processes_before"] is None


def test_idle_samples_say_nothing_of_the_work(nvidia_smi):
    nvidia_smi(event=LOOP.format(lines="""case $n in
1|2) echo 'GPU-b, 345, 2619, 30, 70.00, 0, 0x0000000000000001' ;;
*) echo 'GPU-b, 1980, 2619, 40, 400.00, 97, 0x0000000000000800' ;; esac"""))  # fmt: skip
    (gpu,) = watch(1)["gpus"]
    assert gpu["busy_samples"] == gpu["samples"] - 2 > 0
    assert gpu["sm_clock_mhz"]["min"] == 1980
    assert gpu["clocks_event_reasons"] == {"0x800": gpu["busy_samples"]}


def test_a_driver_that_knows_the_old_name_only(nvidia_smi):
    nvidia_smi(event=UNKNOWN, throttle=WORKING)
    (gpu,) = watch(1)["gpus"]
    assert gpu["samples"] >= 2
    assert set(gpu["clocks_event_reasons"]) == {"sw_power_cap", "sw_thermal_slowdown"}


def test_a_gpu_that_does_not_tell(nvidia_smi):
    nvidia_smi(
        apps="echo 'GPU-b, 17, [N/A]'; echo 'GPU-b, 18, [N/A]'",
        event=LOOP.format(lines="echo 'GPU-b, [N/A], 2619, [Unknown Error], [N/A], [N/A], [N/A]'"),
    )
    (gpu,) = watch(1)["gpus"]
    assert gpu["busy_samples"] == gpu["samples"] > 0
    assert gpu["sm_clock_mhz"] is gpu["temperature_c"] is gpu["clocks_event_reasons"] is None
    assert gpu["memory_clock_mhz"]["max"] == 2619
    assert gpu["other_processes_before"] == {"count": 1, "memory_mib": None}


def test_garbage(nvidia_smi):
    nvidia_smi(
        apps="echo 'No running processes found'; printf '\\377\\000,,\\n,,,,,\\n'",
        event=LOOP.format(
            lines="""printf 'GPU-b, \\000\\377, nan, inf, -, 1e999, 0xfffffffffffffffff\\n'
echo; echo 'Xid 79, GPU has fallen off the bus'; echo ',,,,,,'; echo 'GPU-c, 1, 2, 3, 4, 5, 0x1'
head -c 200000 /dev/zero | tr '\\0' '\\"'; echo; printf 'GPU-b, 1800, 26'"""
        ),
    )
    (gpu,) = watch(1)["gpus"]
    assert gpu["samples"] > 0
    assert gpu["sm_clock_mhz"] is gpu["utilization_percent"] is gpu["clocks_event_reasons"] is None
    assert gpu["other_processes_before"] is None


@pytest.mark.parametrize(
    ("apps", "expected"),
    [
        ([OWN], {"count": 0, "memory_mib": 0}),
        ([OWN, OTHER, OTHER], {"count": 2, "memory_mib": 1024}),
        ([OWN, "GPU-a, 5, [N/A]"], {"count": 1, "memory_mib": None}),
        # In a container the numbers are the host's: one of these is ours.
        (["GPU-a, 31337, 400"], {"count": 0, "memory_mib": 0}),
        (["GPU-a, 31337, 400", "GPU-a, 31338, 500"], {"count": 1, "memory_mib": None}),
        # Not even ours is listed: then others may be there as well.
        ([], None),
        (["GPU-b, 31337, 400"], None),
    ],
)
def test_other_processes(nvidia_smi, apps, expected):
    nvidia_smi(apps="; ".join(f"echo '{line}'" for line in apps) or ":", event=":")
    (gpu,) = watch(0, seconds=0)["gpus"]
    assert gpu["other_processes_before"] == gpu["other_processes_after"] == expected


@pytest.mark.parametrize(
    "script",
    [
        "exit 9",
        "kill -SEGV $$",
        "echo 'NVIDIA-SMI has failed because it could not communicate'; exit 9",
        "exec sleep 60",
    ],
)
def test_nvidia_smi_that_does_not_work(nvidia_smi, monkeypatch, script):
    monkeypatch.setattr("ck_mlperf.machine.nvidia_smi._TIMEOUT_S", 0.3)
    nvidia_smi(apps=script)
    assert watch(0, seconds=0)["gpus"] == []


def test_nvidia_smi_that_knows_neither_name(nvidia_smi):
    nvidia_smi(event=UNKNOWN)
    assert watch(0, seconds=0)["gpus"] == []


def test_nvidia_smi_that_ends_during_the_test(nvidia_smi):
    line = "echo 'GPU-b, 1800, 2619, 60, 650.50, 100, 0x0'"
    nvidia_smi(event=f'{line}; case "$*" in *-lms*) kill -SEGV $$ ;; esac')
    (gpu,) = watch(1)["gpus"]
    assert gpu["samples"] == 1
    assert gpu["sm_clock_mhz"]["median"] == 1800


@pytest.mark.parametrize("trap", ["", "trap '' TERM INT;"])
def test_nvidia_smi_that_hangs_is_killed(nvidia_smi, monkeypatch, trap):
    monkeypatch.setattr(module, "_FIRST_SAMPLE_S", 0.3)
    nvidia_smi(event=f'case "$*" in *-lms*) {trap} while :; do sleep 0.1; done ;; esac')
    children = list_children()
    (gpu,) = watch(1)["gpus"]
    assert gpu["samples"] == 0
    assert list_children() <= children


def test_it_ends_where_the_test_fails(nvidia_smi):
    nvidia_smi()
    children = list_children()

    def fail() -> None:
        with Watch([1]):
            assert list_children() > children
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list_children() <= children


def test_nvidia_smi_ends_with_a_run_that_is_killed(nvidia_smi, tmp_path):
    pid_file = tmp_path / "pid"
    line = "echo 'GPU-a, 1800, 2619, 60, 650.50, 100, 0x0'"
    nvidia_smi(
        apps="echo 'GPU-a, 1, 1'",
        event=f'case "$*" in *-lms*) echo $$ > {pid_file}; {line}; exec sleep 60 ;; esac',
    )
    program = (
        "import time, ck_mlperf.machine.conditions as module\n"
        "module.find_gpu_uuid = lambda device: 'GPU-a'\n"
        "with module.Watch([0]): print('watching', flush=True); time.sleep(60)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    with run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"watching\n"
        pid = int(pid_file.read_text())
        assert is_running(pid)
        run.kill()
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def test_no_nvidia_smi(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "find_gpu_uuid", UUIDS.get)
    assert watch(0)["gpus"] == []


def test_without_gpus_it_is_not_asked(nvidia_smi, tmp_path):
    nvidia_smi(apps=f"touch {tmp_path / 'asked'}")
    conditions = watch(seconds=0)
    assert conditions["gpus"] == []
    assert conditions["gpu_interval_ms"] == 1000
    assert watch(2, seconds=0)["gpus"] == []
    assert not (tmp_path / "asked").exists()


def test_this_process_and_others():
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        used = Path(f"/proc/{burner.pid}/stat")
        with Watch(()) as watched:
            begin, own_begin = read_ticks(used), time.process_time()
            while read_ticks(used) < begin + 30 or time.process_time() < own_begin + 0.3:
                pass
    finally:
        burner.send_signal(signal.SIGKILL)
        burner.wait()
    cpu = watched.conditions["cpu"]
    assert 0.3 <= cpu["own_core_s"] <= cpu["wall_s"] + 0.1
    if cpu["busy_core_s"] is None:
        pytest.skip("NOT RUN: /proc/stat counts nothing here")
    assert cpu["cores"] == os.cpu_count()
    assert cpu["busy_core_s"] - cpu["own_core_s"] > 0.15


def read_ticks(path: Path) -> int:
    return int(path.read_text().rpartition(")")[2].split()[11])


class FakeMachine:
    """/proc/stat and /sys/devices/system/cpu as files."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setattr(module, "_PROC", folder / "proc")
        monkeypatch.setattr(module, "_CPUS", folder / "cpu")
        monkeypatch.setattr(module.os, "getloadavg", lambda: (0.5, 0.4, 0.3))
        monkeypatch.setattr(module.os, "sysconf", lambda name: {"SC_CLK_TCK": 100}[name])

    def write(self, name: str, content: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")

    def write_core(self, number: int, package: int, throttles: tuple[int, int], mhz: int) -> None:
        folder = f"cpu/cpu{number}"
        self.write(f"{folder}/thermal_throttle/core_throttle_count", str(throttles[0]))
        self.write(f"{folder}/thermal_throttle/package_throttle_count", str(throttles[1]))
        self.write(f"{folder}/topology/physical_package_id", str(package))
        self.write(f"{folder}/cpufreq/scaling_cur_freq", str(mhz * 1000))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return FakeMachine(tmp_path, monkeypatch)


def test_what_the_kernel_counts(machine):
    cores = "\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\nctxt 5"
    # user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice
    machine.write("proc/stat", f"cpu  1000 10 200 90000 50 3 4 70 500 0{cores}")
    for core, package in ((0, 0), (1, 0), (2, 1), (3, 1)):
        machine.write_core(core, package, (core, 10 * package), 3000 + core)
    machine.write("cpu/cpufreq/boost", "1")
    with Watch(()) as watched:
        machine.write("proc/stat", f"cpu  1400 20 290 90100 40 4 6 73 800 0{cores}")
        machine.write_core(1, 0, (6, 2), 2000)
        machine.write_core(3, 1, (4, 13), 2100)
        machine.write_core(2, 1, (2, 13), 2900)
    cpu = watched.conditions["cpu"]
    assert cpu["cores"] == 2
    assert cpu["busy_core_s"] == 5.03
    assert cpu["steal_core_s"] == 0.03
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
def test_a_kernel_that_does_not_tell(machine, monkeypatch, text):
    def fail() -> None:
        raise OSError("no load here")

    monkeypatch.setattr(module.os, "getloadavg", fail)
    machine.write("proc/stat", text)
    machine.write("cpu/cpu0/cpufreq/scaling_cur_freq", "<unknown>")
    machine.write("cpu/cpu0/thermal_throttle/core_throttle_count", "many")
    cpu = watch(seconds=0)["cpu"]
    known = {"wall_s", "own_core_s"}
    assert {name for name, value in cpu.items() if value is not None} == known


def test_counters_that_went_back(machine):
    machine.write("proc/stat", "cpu  1000 10 200 90000 50 3 4 70\ncpu0 1")
    machine.write_core(0, 0, (5, 5), 3000)
    with Watch(()) as watched:
        machine.write("proc/stat", "cpu  900 10 200 90000 50 3 4 60\ncpu0 1")
        machine.write_core(0, 0, (4, 5), 3000)
    cpu = watched.conditions["cpu"]
    assert cpu["busy_core_s"] is cpu["steal_core_s"] is cpu["core_throttles"] is None
    assert cpu["package_throttles"] == 0
