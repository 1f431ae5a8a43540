"""What this machine tells of itself for the description of a system, from the kernel's files."""

from __future__ import annotations

from pathlib import Path

from ck_mlperf.machine.environment import describe_environment, read_text
from ck_mlperf.machine.facts import Environment

_GB = 1e9
_SECTOR_BYTES = 512


def is_this_machine(environment: Environment) -> bool:
    """Whether a record's environment looks like this machine: processor, memory and kernel."""
    here = describe_environment(Path("/nonexistent"))
    return (here["cpu"]["model"], here["memory_mib"], here["kernel"]) == (
        environment.cpu.model,
        environment.memory_mib,
        environment.kernel,
    )


def tell(root: Path = Path("/")) -> dict[str, tuple[str, str]]:
    """(value, where from) by field, of those that the kernel's files have.

    root: the folder with the kernel's sys.
    """
    system = root / "sys"
    cpus = sorted(system.glob("devices/system/cpu/cpu[0-9]*/topology"))
    sockets = {read_text(cpu / "physical_package_id") for cpu in cpus} - {None}
    cores = {(read_text(cpu / "physical_package_id"), read_text(cpu / "core_id")) for cpu in cpus}
    told = {}
    if sockets:
        told["host_processors_per_node"] = (str(len(sockets)), "/sys: physical_package_id")
        told["host_processor_core_count"] = (str(len(cores) // len(sockets)), "/sys: core_id")
    caches = [
        f"L{read_text(cache / 'level')} {read_text(cache / 'type')} {read_text(cache / 'size')}"
        for cache in sorted(system.glob("devices/system/cpu/cpu0/cache/index[0-9]*"))
    ]
    if caches:
        told["host_processor_caches"] = (", ".join(caches), "/sys: cpu0/cache")
    clock = read_text(system / "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if clock:
        told["host_processor_frequency"] = (f"{int(clock) / 1000:g} MHz", "/sys: cpufreq")
    told.update(_tell_storage(system))
    cards = [path.parent.name for path in sorted(system.glob("class/net/*/device"))]
    if cards:
        told["host_network_card_count"] = (str(len(cards)), f"/sys: class/net: {', '.join(cards)}")
    return told


def _tell_storage(system: Path) -> dict[str, tuple[str, str]]:
    sizes, kinds = [], set()
    for disk in sorted(system.glob("block/*")):
        size = int(read_text(disk / "size") or 0) * _SECTOR_BYTES
        if disk.name.startswith(("loop", "ram", "zram", "sr", "dm-", "md")) or not size:
            continue
        sizes.append(f"{size / _GB:.0f} GB")
        is_disk = read_text(disk / "queue/rotational") == "1"
        kinds.add("NVMe SSD" if disk.name.startswith("nvme") else "HDD" if is_disk else "SSD")
    if not sizes:
        return {}
    return {
        "host_storage_capacity": (" + ".join(sizes), "/sys: block"),
        "host_storage_type": (", ".join(sorted(kinds)), "/sys: block"),
    }
