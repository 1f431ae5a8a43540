"""What a record says of the machine: its environment, and the conditions during the test.

None: not known.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ck_mlperf.common import units

Commit = Annotated[str, Meta(pattern="^[0-9a-f]{40,64}$")]
Reason = Annotated[str, Meta(pattern="^([a-z_]+|0x[0-9a-f]+)$")]


class Cpu(Struct, frozen=True):
    """The processor."""

    model: str | None
    """Its name."""
    machine: str
    """Architecture."""
    cores: units.Cores | None
    """Cores of the machine."""
    cores_usable: units.Cores
    """Cores that the process may use."""
    cores_quota: Annotated[float, units.unit("cores")] | None
    """Cores' worth of time that a control group allows; null: no limit."""
    governor: str | None
    """Frequency governor of core 0."""
    min_clock_mhz: units.Megahertz | None
    """The lowest that the governor may choose."""
    max_clock_mhz: units.Megahertz | None
    """The highest that the governor may choose."""
    microcode: str | None = None
    """Revision of its microcode, as the kernel has it."""


class Gpu(Struct, frozen=True):
    """A GPU that NVML lists."""

    name: str
    """Its name."""
    driver: str
    """Version of the driver."""
    memory_mib: units.Mebibytes | None
    """Memory in all."""
    max_sm_clock_mhz: units.Megahertz | None
    """The highest clock of the multiprocessors."""
    max_memory_clock_mhz: units.Megahertz | None
    """The highest clock of the memory."""
    power_limit_w: units.Watts | None
    """What the board may draw."""


class Container(Struct, frozen=True):
    """The container that the run was in."""

    kind: str
    """docker, podman, kubernetes, ..."""
    detected_by: str
    """What gave it away."""


class Repository(Struct, frozen=True):
    """This repository's git state."""

    commit: Commit | None
    """null: no commit yet."""
    clean: bool
    """Whether no file differs from the commit."""


class Environment(Struct, frozen=True):
    """Machine and software. No names of hosts or users, no paths."""

    cpu: Cpu
    memory_mib: Annotated[int, units.unit("MiB"), units.POSITIVE]
    """The machine's memory."""
    gpus: list[Gpu]
    """NVIDIA GPUs that NVML lists."""
    os: str | None
    """Distribution and version."""
    kernel: str
    """Kernel and version."""
    container: Container | None
    """null: none detected."""
    python: str
    """Implementation and version."""
    packages: dict[str, str]
    """Versions of the Python packages that are there, by name."""
    repository: Repository | None
    """null: not under git."""
    variables: dict[str, str] | None = None
    """Variables of the process that change threads, memory or GPUs: OMP_NUM_THREADS,
    CUDA_VISIBLE_DEVICES, ... null: not noted, as before version 3."""


class CpuConditions(Struct, frozen=True):
    """The processors during the test. Core-seconds are seconds that one core worked."""

    wall_s: units.Seconds
    """Between the readings before and after the test."""
    cores: units.Cores | None
    """Cores that /proc/stat lists."""
    busy_core_s: units.CoreSeconds | None
    """What the machine worked, for whomever; to 0.01 s."""
    own_core_s: units.CoreSeconds
    """What the run and the processes that it started took."""
    steal_core_s: units.CoreSeconds | None
    """What the hypervisor gave to others while this machine had work; to 0.01 s."""
    core_throttles: units.Count | None
    """Times that heat lowered a core's clock, summed over the cores that the kernel numbers."""
    package_throttles: units.Count | None
    """Times that heat lowered a package's clock, summed over packages."""
    clock_before_mhz: units.Megahertz | None
    """Of the fastest core before the test."""
    clock_after_mhz: units.Megahertz | None
    """Of the fastest core after the test."""
    load_before: Annotated[float, units.unit("processes"), units.NOT_NEGATIVE] | None
    """The system's load, averaged over 1 minute, before the test."""
    load_after: Annotated[float, units.unit("processes"), units.NOT_NEGATIVE] | None
    """The same after the test."""


class Spread(Struct, frozen=True):
    """Figures of the samples in which the GPU was at work."""

    min: float
    """The lowest."""
    median: float
    """The median."""
    max: float
    """The highest."""


class OtherProcesses(Struct, frozen=True):
    """Other processes that computed on the GPU."""

    count: units.Count
    """Processes."""
    memory_mib: units.Mebibytes | None
    """The GPU's memory that they had together; null: not known, as in a container whose process
    numbers are not the host's."""


class GpuConditions(Struct, frozen=True):
    """A GPU during the test. Its figures are of the samples in which it was at work."""

    cuda_device: units.Count
    """CUDA's number of it."""
    samples: units.Count
    """Samples that were taken of it."""
    busy_samples: units.Count
    """Those of them in which the GPU was at work or may have been: its utilization was not 0."""
    sm_clock_mhz: Annotated[Spread, units.unit("MHz")] | None
    """Clock of the multiprocessors."""
    memory_clock_mhz: Annotated[Spread, units.unit("MHz")] | None
    """Clock of the memory."""
    temperature_c: Annotated[Spread, units.unit("°C")] | None
    """Temperature of the GPU."""
    power_w: Annotated[Spread, units.unit("W")] | None
    """What the board drew."""
    utilization_percent: Annotated[Spread, units.unit("%")] | None
    """Share of the time in which a kernel ran."""
    clocks_event_reasons: dict[Reason, Annotated[int, units.unit("samples"), units.POSITIVE]] | None
    """In how many samples each reason (NVML's nvmlClocksEventReasons) kept the clocks from being
    higher; one without a name here by its bit."""
    other_processes_before: OtherProcesses | None
    """Before the test."""
    other_processes_after: OtherProcesses | None
    """After the test."""


class Conditions(Struct, frozen=True):
    """What else the machine did during the test."""

    cpu: CpuConditions
    gpu_interval_ms: units.Milliseconds
    """Between two samples of a GPU."""
    gpus: list[GpuConditions]
    """The GPUs that the engines ran on; empty: none, or NVML does not work."""
    clock_step_s: Annotated[float, units.unit("s")] | None = None
    """By how much the wall clock, by which LoadGen times, was set forward during the test, to the
    millisecond; negative: back. null: not noted, as before version 3."""
