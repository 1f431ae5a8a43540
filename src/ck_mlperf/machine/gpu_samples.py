"""Samples of GPUs at work, taken by a process of its own so that the run's process is left alone.

    python -m ck_mlperf.machine.gpu_samples UUID...

Writes a line of JSON for each GPU, at once and then every `INTERVAL_S`, until stdin is closed: by
whoever started it, or by the system where that process was killed.
"""

from __future__ import annotations

import json
import select
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any

from ck_mlperf.machine.nvml import Nvml, open_nvml

# Why a GPU's clocks are not higher: bits of nvmlClocksEventReasons in NVIDIA's NVML API reference
# and its header nvml.h, whose names these are.
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
INTERVAL_S = 1.0
_READINGS = ("sm_clock_mhz", "memory_clock_mhz", "temperature_c", "power_w", "utilization_percent")


def write_samples(
    nvml: Nvml, uuids: Iterable[str], output: IO[str], has_ended: Callable[[], bool]
) -> None:
    """Write samples until `has_ended`, which waits for the next one's time, says so."""
    found = {uuid: nvml.find_device(uuid) for uuid in uuids}
    devices = {uuid: device for uuid, device in found.items() if device is not None}
    is_over = False
    while not is_over:
        for uuid, device in devices.items():
            print(json.dumps({"uuid": uuid, **nvml.sample(device)}), file=output)
        output.flush()
        is_over = has_ended()


def summarise(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One GPU's samples, as in the record."""
    # Before and after the work, while samples are loaded, the GPU idles at other clocks.
    busy = [sample for sample in samples if sample["utilization_percent"] != 0]
    masks = [sample["clocks_event_reasons"] for sample in busy]
    reasons = Counter(
        CLOCKS_EVENT_REASONS.get(1 << bit, hex(1 << bit))
        for mask in masks
        for bit in range((mask or 0).bit_length())
        if mask >> bit & 1
    )
    return {
        "samples": len(samples),
        "busy_samples": len(busy),
        **{name: _spread(sample[name] for sample in busy) for name in _READINGS},
        "clocks_event_reasons": None if all(mask is None for mask in masks) else dict(reasons),
    }


def _spread(readings: Iterable[float | None]) -> dict[str, float] | None:
    known = [reading for reading in readings if reading is not None]
    if not known:
        return None
    return {"min": min(known), "median": statistics.median(known), "max": max(known)}


def main() -> int:
    with open_nvml() as nvml:
        if nvml is None:
            return 1
        write_samples(
            nvml,
            sys.argv[1:],
            sys.stdout,
            lambda: bool(select.select([sys.stdin], [], [], INTERVAL_S)[0]),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
