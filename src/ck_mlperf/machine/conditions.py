"""What else the machine did during a test: its processors, its clock, the GPUs that engines run on.

While the test runs, no thread of this process wakes for it: processors and clocks are read before
and after, and another process writes samples of the GPUs to a file that is read afterwards. What is
not known is None, and nothing here fails a run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ck_mlperf.machine.environment import read_text
from ck_mlperf.machine.gpu_samples import INTERVAL_S, summarise
from ck_mlperf.machine.gpus import find_gpu_uuid
from ck_mlperf.machine.nvml import Nvml, open_nvml

# It needs nothing that is installed, so -S: it starts sooner.
SAMPLER = (sys.executable, "-S", "-m", "ck_mlperf.machine.gpu_samples")
_SOURCE = Path(__file__).resolve().parents[2]


def read_clock_offset_s() -> float:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC, which changes only where the wall clock is set, or the
    machine sleeps. NTP's gradual corrections are in both."""
    readings = []
    for _ in range(5):  # this thread may be interrupted between two clocks
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        wall = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        readings.append((after - before, wall - (before + after) / 2))
    return min(readings)[1] / 1e9


class Watch:
    """Watches the machine while its block runs: `with Watch((0,)) as watch: ...`.

    `conditions`, as in the record, is there once the block has ended, unless it raised.
    """

    conditions: dict[str, Any]

    def __init__(
        self,
        cuda_devices: Iterable[int],
        sampler: Sequence[str] = SAMPLER,
        patience_s: float = 2.0,
        root: Path = Path("/"),
        read_clock: Callable[[], float] = read_clock_offset_s,
    ) -> None:
        """cuda_devices: CUDA's numbers of the GPUs that the engines run on; contexts are open.

        sampler: the command that takes UUIDs and writes samples. patience_s: for its first sample,
        and again for its end. root: the folder with the kernel's proc and sys.
        read_clock: the wall clock's lead over a steady one, in seconds.
        """
        uuids = {device: find_gpu_uuid(device) for device in cuda_devices}
        self._gpus = _GpuWatch(uuids, sampler, patience_s)
        self._root = root
        self._read_clock = read_clock

    def __enter__(self) -> Watch:
        # The sampler counts as this process's time, so it starts after this.
        self._before = _read_cpu(self._root)
        self._gpus.start()
        self._clock_s = self._read_clock()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        step_s = self._read_clock() - self._clock_s
        self._gpus.end()
        if kind is None:
            self.conditions = {
                "cpu": _compare_cpu(self._before, _read_cpu(self._root)),
                "gpu_interval_ms": round(INTERVAL_S * 1000),
                "gpus": self._gpus.describe(),
                "clock_step_s": round(step_s, 3),
            }


def _read_cpu(root: Path) -> dict[str, Any]:
    """What is known of the processors now. Throttles and core-seconds are counters."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found: dict[str, Any] = {
        "now_s": time.perf_counter(),
        "own_core_s": sum(usage.ru_utime + usage.ru_stime for usage in usages),
    }
    # proc(5): user, nice, system, idle, iowait, irq, softirq, steal; guests are in user, nice.
    # A sandbox may give zeros.
    lines = (read_text(root / "proc/stat") or "").splitlines() or [""]
    with contextlib.suppress(ValueError):
        ticks = [int(word) for word in lines[0].split()[1:9]]
        if len(ticks) == 8 and any(ticks):
            tick_s = 1 / os.sysconf("SC_CLK_TCK")
            found["busy_core_s"] = (sum(ticks[:3]) + ticks[5] + ticks[6]) * tick_s
            found["steal_core_s"] = ticks[7] * tick_s
            found["cores"] = sum(re.match(r"cpu\d", line) is not None for line in lines) or None
    with contextlib.suppress(ValueError):
        found["load"] = float((read_text(root / "proc/loadavg") or "").partition(" ")[0])
    packages: dict[str | None, int] = {}
    for cpu in (root / "sys/devices/system/cpu").glob("cpu[0-9]*"):
        with contextlib.suppress(ValueError):
            clock_mhz = int(read_text(cpu / "cpufreq/scaling_cur_freq") or "") / 1000
            found["clock_mhz"] = max(clock_mhz, found.get("clock_mhz", 0.0))
        throttles = cpu / "thermal_throttle"
        with contextlib.suppress(ValueError):
            count = int(read_text(throttles / "core_throttle_count") or "")
            found["core_throttles"] = found.get("core_throttles", 0) + count
            # Each core of a package has the package's.
            count = int(read_text(throttles / "package_throttle_count") or "")
            package = read_text(cpu / "topology/physical_package_id")
            packages[package] = max(count, packages.get(package, 0))
    found["package_throttles"] = sum(packages.values()) if packages else None
    return found


def _compare_cpu(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The record's part on the processors."""
    return {
        "wall_s": after["now_s"] - before["now_s"],
        "cores": after.get("cores"),
        "busy_core_s": _subtract(after.get("busy_core_s"), before.get("busy_core_s")),
        "own_core_s": after["own_core_s"] - before["own_core_s"],
        **{
            name: _subtract(after.get(name), before.get(name))
            for name in ("steal_core_s", "core_throttles", "package_throttles")
        },
        "clock_before_mhz": before.get("clock_mhz"),
        "clock_after_mhz": after.get("clock_mhz"),
        "load_before": before.get("load"),
        "load_after": after.get("load"),
    }


class _GpuWatch:
    """A sampler for as long as the test runs, and the GPUs' processes before and after it."""

    def __init__(
        self, uuids: Mapping[int, str | None], sampler: Sequence[str], patience_s: float
    ) -> None:
        self._uuids = uuids
        self._known = [uuid for uuid in dict.fromkeys(uuids.values()) if uuid is not None]
        self._command = [*sampler, *self._known]
        self._patience_s = patience_s
        self._others: dict[str, dict[str, Any] | None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._samples: dict[str, list[dict[str, Any]]] = {}

    def start(self) -> None:
        """Note the processes, and start the sampler.

        Waits for the first sample: the sampler's start costs more than all that follows.
        """
        self._others = self._find_others()
        if self._others is None:
            return
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            self._output: IO[bytes] = opened.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,  # the sampler ends when it is closed
                stdout=self._output,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": str(_SOURCE)},
            )
            opened.pop_all()
            deadline = time.monotonic() + self._patience_s
            while (
                not os.fstat(self._output.fileno()).st_size
                and self._process.poll() is None
                and time.monotonic() < deadline
            ):
                time.sleep(0.01)

    def end(self) -> None:
        """End the sampler, whatever it does, and read what it wrote."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(self._patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._output:
            self._output.seek(0)
            for line in self._output:
                with contextlib.suppress(ValueError):  # the last line may be cut off
                    sample = json.loads(line)
                    self._samples.setdefault(sample["uuid"], []).append(sample)

    def describe(self) -> list[dict[str, Any]]:
        """The record's part, one entry for each GPU; empty where NVML does not work."""
        if self._others is None:
            return []
        after = self._find_others() or {}
        return [
            {
                "cuda_device": device,
                **summarise(self._samples.get(uuid or "", ())),
                "other_processes_before": self._others.get(uuid or ""),
                "other_processes_after": after.get(uuid or ""),
            }
            for device, uuid in self._uuids.items()
        ]

    def _find_others(self) -> dict[str, dict[str, Any] | None] | None:
        """The processes other than this one, by GPU; None where NVML does not work."""
        if not self._known:
            return None
        with open_nvml() as nvml:
            return None if nvml is None else {u: _count_others(nvml, u) for u in self._known}


def _count_others(nvml: Nvml, uuid: str) -> dict[str, Any] | None:
    """The processes other than this one on one GPU.

    This process has a context on each GPU in use, so one of those listed there is its own, also in
    a container, where the numbers are the host's and none is ours. Whose the memory is cannot be
    told then. Where none is listed, not even ours, nothing is known.
    """
    device = nvml.find_device(uuid)
    listed = None if device is None else nvml.list_processes(device)
    if not listed:
        return None
    own = os.getpid()
    others = [memory_mib for process, memory_mib in listed if process != own]
    count = min(len(others), len(listed) - 1)
    memory_mib = None if len(others) > count or None in others else sum(filter(None, others))
    return {"count": count, "memory_mib": memory_mib if count else 0}


def _subtract(after: float | None, before: float | None) -> float | None:
    """By how much a counter has risen; None where that is not known, or where it fell."""
    if after is None or before is None or after < before:
        return None
    return round(after - before, 2)
