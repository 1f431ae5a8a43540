"""Our own check of a submission's tree: what the official checker would say, and why.

It looks at what the checker of `requirements.VERSION` looks at, in trees of ResNet-50; other
benchmarks and power are left to the official one. Where that ends with a traceback at the first
thing of a kind, this goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ck_mlperf.common.files import read_json
from ck_mlperf.submission import requirements
from ck_mlperf.submission.check_runs import Scenario, check_scenario
from ck_mlperf.submission.complaints import Complaint


def check_tree(root: Path) -> list[Complaint]:
    """All that is wrong in the folder that has closed/ and open/, each thing once, in order."""
    return list(dict.fromkeys(_check_tree(root)))


def _check_tree(root: Path) -> Iterator[Complaint]:
    is_empty = True
    for division in requirements.DIVISIONS:
        for submitter in _list_folders(root / division):
            is_empty = False
            yield from _check_submitter(submitter, division)
    if is_empty:
        yield Complaint("empty", ".")


def _check_submitter(folder: Path, division: str) -> Iterator[Complaint]:
    where = f"{division}/{folder.name}"
    if not (folder / "results").is_dir():
        yield Complaint("folder-missing", where, "results")
    mapping: Mapping[str, Any] = {}
    if division == "open" and (folder / "model_mapping.json").exists():
        read = _read_object(folder / "model_mapping.json")
        if read is None:
            yield Complaint("not-json", where, "model_mapping.json")
        mapping = read or {}
    if not (folder / "src").is_dir():
        yield Complaint("src-missing", where)
    for results in _list_folders(folder / "results"):
        yield from _check_system(results, division, folder, mapping)


def _check_system(
    results: Path, division: str, submitter: Path, mapping: Mapping[str, Any]
) -> Iterator[Complaint]:
    where = f"{division}/{submitter.name}/results/{results.name}"
    path = submitter / "systems" / f"{results.name}.json"
    system = _read_object(path) if path.exists() else {}
    if system is None:
        yield Complaint("not-json", where, f"systems/{path.name}")
    elif not path.exists():
        yield Complaint("system-missing", where, f"systems/{path.name}")
    else:
        yield from _check_description(system, where, division, submitter.name)
    system_type = str((system or {}).get("system_type"))
    for benchmark in _list_folders(results):
        model = requirements.find_model(benchmark.name, mapping)
        if model in requirements.OTHER_MODELS:
            yield Complaint("not-checked", where, benchmark.name)
            continue
        if model != requirements.MODEL:
            for scenario in _list_folders(benchmark):
                yield Complaint(
                    "benchmark-unknown", f"{where}/{benchmark.name}/{scenario.name}", "", model
                )
            if division != "open":
                yield Complaint("type-has-no-benchmark", f"{where}/{benchmark.name}", system_type)
            continue
        names = [folder.name for folder in _list_folders(benchmark)]
        if division != "open":
            yield from _check_scenarios(names, system_type, f"{where}/{benchmark.name}")
        for name in names:
            yield from check_scenario(
                Scenario(
                    folder=benchmark / name,
                    where=f"{where}/{benchmark.name}/{name}",
                    division=division,
                    system_type=system_type,
                    is_network=_is_network(system or {}),
                )
            )


def _check_scenarios(names: Iterable[str], system_type: str, where: str) -> Iterator[Complaint]:
    """closed: the scenarios of the system's type, all of them and no others.

    The checker says it of each scenario that is there.
    """
    present = {name.lower(): name for name in names}
    required = requirements.REQUIRED_SCENARIOS.get(system_type)
    if required is None:
        if system_type in requirements.SYSTEM_TYPES:
            yield Complaint("type-has-no-benchmark", where, system_type)
        return
    wanted = {name.lower() for name in required}
    for kind, odd in (
        ("scenarios-missing", wanted - present.keys()),
        ("scenarios-unknown", present.keys() - wanted),
    ):
        if odd:
            yield Complaint(kind, where, ", ".join(sorted(odd)))


def _check_description(
    system: Mapping[str, Any], where: str, division: str, submitter: str
) -> Iterator[Complaint]:
    for kind, wanted in (("submitter", submitter), ("division", division)):
        value = system.get(kind)
        if isinstance(value, str) and value.lower() != wanted.lower():
            yield Complaint(kind, where, "", value)
    status, system_type = system.get("status"), system.get("system_type")
    if isinstance(status, str) and status.lower() not in requirements.STATUSES:
        yield Complaint("status", where, "", status)
    if system_type not in requirements.SYSTEM_TYPES:
        yield Complaint("system-type", where, "", str(system_type))
    if division != "open" and _is_network(system) != (division == "network"):
        yield Complaint("network-mode", where)
    fields = dict(requirements.SYSTEM_FIELDS)
    if system.get("is_network"):
        fields |= dict.fromkeys(requirements.NETWORK_FIELDS, False)
    texts = ("status", "submitter", "division")
    for name, must_say in fields.items():
        value = system.get(name)
        if name not in system or (name in texts and not isinstance(value, str)):
            yield Complaint("field-missing", where, name)
        if name in system and must_say and not value:
            yield Complaint("field-empty", where, name)
    for name in ("number_of_nodes", "accelerators_per_node"):
        if system.get(name) and not _is_whole_number(system[name]):
            yield Complaint("not-a-number", where, name, str(system[name]))
    notes = ("hw_notes", "sw_notes") if system.get("sw_notes") else ()
    for name in notes:
        if system.get(name) and not isinstance(system[name], str):
            yield Complaint("field-missing", where, name, str(system[name]))
    if not isinstance(system.get("is_network", ""), str | None):
        yield Complaint("field-missing", where, "is_network", str(system["is_network"]))


def _is_network(system: Mapping[str, Any]) -> bool:
    return str(system.get("is_network")).lower() == "true"


def _is_whole_number(value: Any) -> bool:
    try:
        int(value)
    except (TypeError, ValueError):
        return False
    return True


def _read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object; None: the file holds none."""
    try:
        content = read_json(path)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _list_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
