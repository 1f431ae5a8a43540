"""What else the machine did during a test: its processors, and the GPUs that the engines run on.

While the test runs, no thread of this process wakes for it: the processors are read before and
after, and nvidia-smi, a process of its own, writes its samples to a file that is read afterwards.
What cannot be known is None, and nothing here fails a run.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ck_mlperf.machine.environment import find_gpu_uuid, read_text
from ck_mlperf.machine.nvidia_smi import (
    AS_ROWS,
    NVIDIA_SMI,
    parse_number,
    parse_rows,
    query_nvidia_smi,
)

# What keeps a GPU's clocks from being higher: bits of nvmlClocksEventReasons in NVIDIA's NVML API
# reference and its header nvml.h, the names as there.
CLOCKS_EVENT_REASONS = {
    0x1: "gpu_idle",  # nothing runs
    0x2: "applications_clocks_setting",  # nvidia-smi --applications-clocks
    0x4: "sw_power_cap",  # at the power limit, as is usual under full load
    0x8: "hw_slowdown",  # to half or less: heat, power brake, too much power; or a change of clocks
    0x10: "sync_boost",  # waits for the GPUs of its sync boost group
    0x20: "sw_thermal_slowdown",  # the driver keeps it or its memory under the highest temperature
    0x40: "hw_thermal_slowdown",  # to half or less, for heat
    0x80: "hw_power_brake_slowdown",  # to half or less, asked for from outside: the power supply
    0x100: "display_clock_setting",  # for the displays
    0x200: "board_limit",
    0x400: "reliability",
}
_INTERVAL_MS = 1000
_FIELDS = {
    "clocks.sm": "sm_clock_mhz",
    "clocks.mem": "memory_clock_mhz",
    "temperature.gpu": "temperature_c",
    "power.draw": "power_w",
    "utilization.gpu": "utilization_percent",
}
# The second is the name up to driver 530; newer ones still know it.
_REASONS_FIELDS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
_MASK = re.compile(r"0x[0-9A-Fa-f]{1,16}")
# The system ends nvidia-smi, which never ends by itself, when this process is killed: prctl's 1 is
# PR_SET_PDEATHSIG. subprocess's preexec_fn could do that and is not safe beside threads.
_RUN_TIED = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
_FIRST_SAMPLE_S = 2.0
_END_S = 2.0

_PROC = Path("/proc")
_CPUS = Path("/sys/devices/system/cpu")


class Watch:
    """Watches the machine while its block runs: `with Watch((0,)) as watch: ...`.

    Entered by a thread that outlives the block. `conditions`, as in the record, is there once the
    block has ended, unless it raised.
    """

    conditions: dict[str, Any]

    def __init__(self, cuda_devices: Iterable[int]) -> None:
        """cuda_devices: CUDA's numbers of the GPUs that the engines run on; contexts are open."""
        self._gpus = _GpuWatch({device: find_gpu_uuid(device) for device in cuda_devices})

    def __enter__(self) -> Watch:
        # The processes of nvidia-smi count as this process's time, so they start after this.
        self._state = _CpuState.read()
        self._time = _CpuTime.read()
        self._gpus.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._gpus.end()
        if kind is None:
            cpu_time, cpu_state = _CpuTime.read(), _CpuState.read()
            self.conditions = {
                "cpu": {**cpu_time.since(self._time), **cpu_state.since(self._state)},
                "gpu_interval_ms": _INTERVAL_MS,
                "gpus": self._gpus.describe(),
            }


@dataclass(frozen=True)
class _CpuTime:
    """Counters of seconds."""

    now_s: float
    cores: int | None
    busy_core_s: float | None
    steal_core_s: float | None
    own_core_s: float

    @staticmethod
    def read() -> _CpuTime:
        cores = busy_s = steal_s = None
        # proc(5): user, nice, system, idle, iowait, irq, softirq, steal; guests are in user, nice.
        # A sandbox may give zeros.
        lines = (read_text(_PROC / "stat") or "").splitlines()
        with contextlib.suppress(ValueError):
            ticks = [int(word) for word in lines[0].split()[1:9]] if lines else []
            if len(ticks) == 8 and any(ticks):
                tick_s = 1 / os.sysconf("SC_CLK_TCK")
                busy_s = (sum(ticks[:3]) + ticks[5] + ticks[6]) * tick_s
                steal_s = ticks[7] * tick_s
                cores = sum(re.match(r"cpu\d", line) is not None for line in lines) or None
        usages = [
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        own_s = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        return _CpuTime(time.perf_counter(), cores, busy_s, steal_s, own_s)

    def since(self, before: _CpuTime) -> dict[str, Any]:
        return {
            "wall_s": self.now_s - before.now_s,
            "cores": self.cores,
            "busy_core_s": _subtract(self.busy_core_s, before.busy_core_s),
            "own_core_s": self.own_core_s - before.own_core_s,
            "steal_core_s": _subtract(self.steal_core_s, before.steal_core_s),
        }


@dataclass(frozen=True)
class _CpuState:
    core_throttles: int | None
    package_throttles: int | None
    clock_mhz: float | None
    load: float | None

    @staticmethod
    def read() -> _CpuState:
        cores: list[int] = []
        packages: dict[str | None, int] = {}
        clocks: list[float] = []
        for cpu in _CPUS.glob("cpu[0-9]*"):
            clock_khz = parse_number(read_text(cpu / "cpufreq" / "scaling_cur_freq") or "")
            if clock_khz is not None:
                clocks.append(clock_khz / 1000)
            throttles = cpu / "thermal_throttle"
            with contextlib.suppress(ValueError):
                cores.append(int(read_text(throttles / "core_throttle_count") or ""))
                # Each core of a package has the package's.
                count = int(read_text(throttles / "package_throttle_count") or "")
                package = read_text(cpu / "topology" / "physical_package_id")
                packages[package] = max(count, packages.get(package, 0))
        load = None
        with contextlib.suppress(OSError):
            load = os.getloadavg()[0]
        return _CpuState(
            sum(cores) if cores else None,
            sum(packages.values()) if packages else None,
            max(clocks, default=None),
            load,
        )

    def since(self, before: _CpuState) -> dict[str, Any]:
        return {
            "core_throttles": _subtract(self.core_throttles, before.core_throttles),
            "package_throttles": _subtract(self.package_throttles, before.package_throttles),
            "clock_before_mhz": before.clock_mhz,
            "clock_after_mhz": self.clock_mhz,
            "load_before": before.load,
            "load_after": self.load,
        }


class _GpuWatch:
    """nvidia-smi, asked for samples as long as the test runs, and for processes around it."""

    def __init__(self, uuids: Mapping[int, str | None]) -> None:
        self._uuids = uuids
        self._known = [uuid for uuid in dict.fromkeys(uuids.values()) if uuid is not None]
        self._processes: dict[str, Any] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes]
        self._rows: list[list[str]] = []

    def start(self) -> None:
        """Note the processes, and start it, both at once: each nvidia-smi may take a second.

        Waits for its first sample: its start costs more than all that follows.
        """
        if not self._known:
            return
        with ThreadPoolExecutor(1) as pool:
            counted = pool.submit(_count_others)
            for reasons in _REASONS_FIELDS:
                if self._start_with(reasons):
                    break
            self._processes = counted.result()
        if self._processes is None and self._process is not None:
            self.end()
            self._process = None

    def _start_with(self, reasons: str) -> bool:
        """Start it with a name for the reasons of lowered clocks. Whether it knows that name."""
        query = ["-i", ",".join(self._known), f"--query-gpu=uuid,{','.join(_FIELDS)},{reasons}"]
        command = [NVIDIA_SMI, *query, AS_ROWS, "-lms", str(_INTERVAL_MS)]
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            output = opened.enter_context(tempfile.TemporaryFile())
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _RUN_TIED, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
            )
            opened.pop_all()
            self._output, self._process = output, process
        if self._process is None:
            return True  # nor would another name help
        deadline = time.monotonic() + _FIRST_SAMPLE_S
        while not self._has_sample():
            code = self._process.poll()
            if code and not self._has_sample():
                self._output.close()
                self._process = None
                return False
            if code is not None or time.monotonic() > deadline:  # slow, but at it
                break
            time.sleep(0.01)
        return True

    def _has_sample(self) -> bool:
        """Whether its first line is there and is one: it says on stdout what it does not know."""
        line, end, _ = os.pread(self._output.fileno(), 4096, 0).partition(b"\n")
        return bool(end) and line.count(b",") == len(_FIELDS) + 1

    def end(self) -> None:
        """End it, whatever it does, and read what it wrote."""
        if self._process is None:
            return
        for stop in (self._process.terminate, self._process.kill):
            stop()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
                break
        with self._output:
            self._output.seek(0)
            self._rows = parse_rows(self._output.read())

    def describe(self) -> list[dict[str, Any]]:
        """The record's part, a GPU each; empty where nvidia-smi does not work."""
        if self._process is None:
            return []
        before, after = self._processes or {}, _count_others() or {}
        return [
            {
                "cuda_device": device,
                **_summarise([row[1:] for row in self._rows if row[0] == uuid]),
                "other_processes_before": before.get(uuid or ""),
                "other_processes_after": after.get(uuid or ""),
            }
            for device, uuid in self._uuids.items()
        ]


def _count_others() -> dict[str, dict[str, Any]] | None:
    """The processes other than this one, by GPU; None where nvidia-smi does not work.

    This process has a context on each GPU in use, so one of those listed there is its own, also in
    a container, where the numbers are the host's and none is ours; whose the memory is cannot be
    told then. A GPU for which none is listed, not even ours, is left out: nothing is known of it.
    """
    rows = query_nvidia_smi("--query-compute-apps=gpu_uuid,pid,used_memory")
    if rows is None:
        return None
    own = str(os.getpid())
    found = {}
    for uuid in {row[0] for row in rows if len(row) == 3}:
        listed = [row for row in rows if len(row) == 3 and row[0] == uuid]
        others = [parse_number(memory) for _, pid, memory in listed if pid != own]
        count = min(len(others), len(listed) - 1)
        memory_mib = None if len(others) > count or None in others else sum(filter(None, others))
        found[uuid] = {"count": count, "memory_mib": memory_mib if count else 0}
    return found


def _summarise(rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Figures of the rows of one GPU, those of a line that was cut off left out."""
    samples = [
        ([parse_number(cell) for cell in row[:-1]], row[-1])
        for row in rows
        if len(row) == len(_FIELDS) + 1
    ]
    # Before and after the work, while samples are loaded, the GPU idles at other clocks.
    busy = [(figures, mask) for figures, mask in samples if figures[-1] != 0]
    masks = [int(mask, 16) for _, mask in busy if _MASK.fullmatch(mask)]
    reasons = Counter(
        CLOCKS_EVENT_REASONS.get(1 << bit, hex(1 << bit))
        for mask in masks
        for bit in range(mask.bit_length())
        if mask >> bit & 1
    )
    columns = zip(*(figures for figures, _ in busy), strict=True) if busy else [()] * len(_FIELDS)
    return {
        "samples": len(samples),
        "busy_samples": len(busy),
        **{name: _spread(column) for name, column in zip(_FIELDS.values(), columns, strict=True)},
        "clocks_event_reasons": dict(reasons) if masks else None,
    }


def _spread(column: Iterable[float | None]) -> dict[str, float] | None:
    known = [figure for figure in column if figure is not None]
    if not known:
        return None
    return {"min": min(known), "median": statistics.median(known), "max": max(known)}


def _subtract(after: float | None, before: float | None) -> float | None:
    """What a counter has gone up by; None where that is not known, or it went back."""
    if after is None or before is None or after < before:
        return None
    return round(after - before, 2)
