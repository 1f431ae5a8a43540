"""The description of a system, systems/NAME.json: what the records tell, and what is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import read_yaml, write_file
from ck_mlperf.common.suggest import suggest
from ck_mlperf.loadgen.engines.registry import GPU, find_by_name
from ck_mlperf.results.record import Record
from ck_mlperf.submission import machine_facts
from ck_mlperf.submission.requirements import STATUSES, SYSTEM_FIELDS, SYSTEM_TYPES

NONE = "N/A"
_GIVEN = ("division", "submitter")
_ASKED = {
    "system_name": "what the results are listed under",
    "status": "available: can be bought or rented; preview; rdi: research, development, internal",
    "system_type": "edge, or datacenter,edge; the round takes no ResNet-50 of a datacenter alone",
    "system_type_detail": "more about the type; may stay empty",
    "host_processors_per_node": "sockets",
    "host_processor_core_count": "cores of a processor, not threads",
    "host_processor_frequency": "may stay empty",
    "host_processor_caches": "may stay empty",
    "host_processor_interconnect": "between sockets; may stay empty",
    "host_memory_configuration": "16x 32GB DDR5-4800",
    "host_storage_capacity": "2 TB",
    "host_storage_type": "NVMe SSD",
    "host_networking": "Ethernet, InfiniBand, ...",
    "host_network_card_count": "how many, of which speed",
    "host_networking_topology": "N/A for a single node",
    "accelerator_frequency": "may stay empty",
    "accelerator_memory_configuration": "HBM3, GDDR6, ...",
    "accelerator_host_interconnect": "PCIe Gen4 x16",
    "accelerator_interconnect": "between accelerators: NVLink, ...",
    "accelerator_interconnect_topology": "may stay empty",
    "accelerator_on-chip_memories": "may stay empty",
    "cooling": "air, liquid, passive",
    "hw_notes": "may stay empty",
    "sw_notes": "may stay empty",
}


class Told(NamedTuple):
    """A field that need not be asked for."""

    value: str
    source: str
    """Where it came from."""


def find_widest(records: Iterable[Record]) -> Record:
    """The record of the run on the most devices, which tells how many the system has."""
    return max(records, key=_count_devices)


def tell_fields(first: Record) -> dict[str, Told]:
    """The fields that a record tells, or that this machine does where the record is its own."""
    environment, engine = first.environment, first.engine
    known = find_by_name(engine.name)
    gpus = environment.gpus if known and known.runs_on == GPU else []
    names = [gpu.name for gpu in gpus if gpu.name in engine.device]
    packages = environment.packages
    software = [f"{name} {packages[name]}" for name in sorted(packages)]
    fields = {
        "number_of_nodes": Told("1", "a run is of one machine"),
        "host_processor_model_name": Told(
            environment.cpu.model or environment.cpu.machine, "record: environment.cpu.model"
        ),
        "host_memory_capacity": Told(
            f"{environment.memory_mib / 1024:.0f} GiB", "record: environment.memory_mib"
        ),
        "accelerators_per_node": Told(str(_count_devices(first) if names else 0), "record: engine"),
        "accelerator_model_name": Told(names[0] if names else NONE, "record: engine.device"),
        "accelerator_memory_capacity": Told(
            _describe_memory(gpus[0].memory_mib) if names else NONE, "record: environment.gpus"
        ),
        "framework": Told(f"{engine.name} {engine.version}", "record: engine"),
        "operating_system": Told(
            f"{environment.os or ''} ({environment.kernel})".strip(), "record: environment.os"
        ),
        "other_software_stack": Told(
            ", ".join([f"LoadGen {first.verdicts.loadgen.version}", environment.python, *software]),
            "record: environment.packages",
        ),
    }
    if names and gpus[0].max_sm_clock_mhz:
        fields["accelerator_frequency"] = Told(
            f"{gpus[0].max_sm_clock_mhz:g} MHz", "record: environment.gpus"
        )
    if not names:
        for name in SYSTEM_FIELDS:
            if name.startswith("accelerator_") and name not in fields:
                fields[name] = Told(NONE, "no accelerator ran")
    if machine_facts.is_this_machine(environment):
        fields |= {name: Told(*told) for name, told in machine_facts.tell().items()}
    return fields


def read_system(path: Path, told: Mapping[str, Told], experiments: str) -> dict[str, str]:
    """The fields that a YAML file gives, over those that are `told`.

    Writes the file, as a template, where there is none. Raises UserError for that, and where
    fields are missing, all at once.
    """
    if not path.exists():
        write_file(path, _make_template(told, experiments))
        raise UserError(
            f"{path}: there was no such file. It is a template now: fill in what is empty, and "
            "give the command again"
        )
    try:
        given = read_yaml(path) or {}
    except ValueError as error:
        raise UserError(f"{path}: not YAML: {error}") from error
    if not isinstance(given, dict):
        raise UserError(f"{path}: want lines of the form `field: value`")
    fields = {name: one.value for name, one in told.items()}
    fields |= {str(name): "" if value is None else str(value) for name, value in given.items()}
    problems = [
        f"{name}: no such field{suggest(name, SYSTEM_FIELDS)}"
        for name in fields
        if name not in SYSTEM_FIELDS
    ]
    problems += [f"{name}: not in this file; --{name} has it" for name in _GIVEN if name in given]
    problems += list(_find_gaps(fields))
    if problems:
        raise UserError(f"{path}: fill in or correct:\n  " + "\n  ".join(problems))
    return {name: fields.get(name, "") for name in SYSTEM_FIELDS if name not in _GIVEN}


def make_folder_name(system_name: str) -> str:
    """A system's name as that of its folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", system_name).strip("._") or "system"


def _find_gaps(fields: Mapping[str, Any]) -> Iterable[str]:
    for name, must_say in SYSTEM_FIELDS.items():
        if must_say and name not in _GIVEN and not fields.get(name, "").strip():
            yield f"{name}: empty ({_ASKED.get(name, 'required')})"
    for name, values in (("status", STATUSES), ("system_type", SYSTEM_TYPES)):
        value = fields.get(name)
        if value and value not in values:
            yield f"{name}: {value}; want {' | '.join(values)}{suggest(value, values)}"
    for name in ("number_of_nodes", "accelerators_per_node"):
        if not re.fullmatch(r"\d+", fields.get(name) or "0"):
            yield f"{name}: {fields[name]}; want a whole number"


def _make_template(told: Mapping[str, Told], experiments: str) -> str:
    """YAML to fill in: first what is missing, then what is told, to be checked."""
    lines = [
        "# The system of a submission, for `ck submit loadgen --system=THIS_FILE`.",
        "# Fill these in; N/A where there is none.",
    ]
    for name in SYSTEM_FIELDS:
        if name not in told and name not in _GIVEN:
            lines.append(f'{name}: ""  # {_ASKED.get(name, "required")}')
    lines += ["", f"# Told by the records of {experiments}, or by this machine. Check them."]
    for name, one in told.items():
        text = one.value.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'{name}: "{text}"  # {one.source}')
    return "\n".join(lines) + "\n"


def _count_devices(record: Record) -> int:
    return len(record.engine.devices or [None])


def _describe_memory(mib: float | None) -> str:
    return NONE if mib is None else f"{mib / 1024:.0f} GiB"
