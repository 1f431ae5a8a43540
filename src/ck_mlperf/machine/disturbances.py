"""What in the conditions of a run makes its figures doubtful."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ck_mlperf.machine.facts import Conditions, CpuConditions, GpuConditions

_MOST_OTHERS = 0.10
_MOST_STEAL = 0.02
# Processor time is counted in ticks of 10 ms a core.
_SHORTEST_S = 1.0
# NVML says that a change of clocks may be reported as a slowdown by hardware as well.
_FEWEST_HW_SLOWDOWNS = 2


@dataclass(frozen=True)
class Disturbance:
    """One reason to doubt a run's figures."""

    kind: str
    """clock, other_processes, steal, gpu_heat, gpu_power_brake, gpu_slowdown or gpu_shared."""
    text: str
    """What was measured, and what to do; one line."""


def find_disturbances(conditions: Conditions, on_cpu: bool) -> list[Disturbance]:
    """The disturbances of a performance run.

    on_cpu: whether the engine computes on the processors, which other processes take from it.
    A power cap of a GPU (sw_power_cap) is none: under full load it is the usual limit.
    """
    found = list(_judge_cpu(conditions.cpu, on_cpu))
    if conditions.clock_step_s:
        found.append(Disturbance("clock", describe_clock_step(conditions.clock_step_s)))
    for gpu in conditions.gpus:
        found += _judge_clocks(gpu)
        found += _judge_processes(gpu)
    return found


def describe_clock_step(step_s: float) -> str:
    """What happened to the wall clock, and what to do."""
    return (
        f"the wall clock, by which LoadGen times, was set {'back' if step_s < 0 else 'forward'} by "
        f"{abs(step_s):.3f} s during the test: run again once it is synchronised (`timedatectl`)"
    )


def _judge_cpu(cpu: CpuConditions, on_cpu: bool) -> Iterator[Disturbance]:
    if cpu.wall_s < _SHORTEST_S or not cpu.cores:
        return
    core_s = cpu.wall_s * cpu.cores
    if on_cpu and cpu.busy_core_s is not None:
        others_s = cpu.busy_core_s - cpu.own_core_s
        if others_s > _MOST_OTHERS * core_s:
            yield Disturbance(
                "other_processes",
                f"other processes took {others_s / cpu.wall_s:.2g} of the {cpu.cores} cores "
                f"({others_s / core_s:.0%}): end them and run again",
            )
    if cpu.steal_core_s is not None and cpu.steal_core_s > _MOST_STEAL * core_s:
        yield Disturbance(
            "steal",
            f"the hypervisor took {cpu.steal_core_s / core_s:.1%} of the cores' time (steal): "
            "run again where cores are not shared",
        )


def _judge_clocks(gpu: GpuConditions) -> Iterator[Disturbance]:
    """What NVML's nvmlClocksEventReasons call slowdowns: see `CLOCKS_EVENT_REASONS`."""
    counts = gpu.clocks_event_reasons or {}
    clocks, samples = f"GPU {gpu.cuda_device}'s clocks", f"of {gpu.busy_samples} samples"
    heats = [counts.get(name, 0) for name in ("sw_thermal_slowdown", "hw_thermal_slowdown")]
    brake = counts.get("hw_power_brake_slowdown", 0)
    slowdown = counts.get("hw_slowdown", 0)
    if any(heats):
        least = "at least " if all(heats) else ""  # the two may have been in different samples
        hottest = f", up to {gpu.temperature_c.max:.0f} C" if gpu.temperature_c else ""
        yield Disturbance(
            "gpu_heat",
            f"heat lowered {clocks} in {least}{max(heats)} {samples}{hottest}: cool it better",
        )
    if brake:
        yield Disturbance(
            "gpu_power_brake",
            f"a power brake lowered {clocks} in {brake} {samples}: check its power supply",
        )
    # It stands beside the two above, which say why.
    if slowdown >= _FEWEST_HW_SLOWDOWNS and not any(heats) and not brake:
        yield Disturbance(
            "gpu_slowdown",
            f"the hardware lowered {clocks} in {slowdown} {samples}: check its power and cooling",
        )


def _judge_processes(gpu: GpuConditions) -> Iterator[Disturbance]:
    before, after = gpu.other_processes_before, gpu.other_processes_after
    for when, seen in (("before", before), ("after", after)):
        if seen and seen.count:
            memory = seen.memory_mib
            held = "" if memory is None else f", with {memory:.0f} MiB"
            others = "1 other process" if seen.count == 1 else f"{seen.count} others"
            yield Disturbance(
                "gpu_shared",
                f"{others} on GPU {gpu.cuda_device} {when} the test{held}: end what "
                "`nvidia-smi` lists there",
            )
            return
