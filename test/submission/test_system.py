"""The description of a system: what records tell, and what the user fills in."""

from __future__ import annotations

import pytest
import yaml

from ck_mlperf.common.errors import UserError
from ck_mlperf.submission import machine_facts
from ck_mlperf.submission.requirements import SYSTEM_FIELDS
from ck_mlperf.submission.system import find_widest, make_folder_name, read_system, tell_fields

from ..builders.records import make_record
from ..builders.submission import SYSTEM

GPU = {
    "name": "NVIDIA H100",
    "driver": "550.1",
    "memory_mib": 81559,
    "max_sm_clock_mhz": 1980,
    "max_memory_clock_mhz": 2619,
    "power_limit_w": 700,
}


def tell(**changes):
    return {name: one.value for name, one in tell_fields(make_record(**changes)).items()}


def test_what_a_record_tells():
    told = tell()
    record = make_record()
    assert told["host_processor_model_name"] == record.environment.cpu.model
    assert told["accelerators_per_node"] == "0"
    assert told["accelerator_model_name"] == told["accelerator_interconnect"] == "N/A"
    assert told["framework"] == f"onnxruntime-cpu {record.engine.version}"
    assert "LoadGen 6.0.17" in told["other_software_stack"]
    assert told.keys() <= SYSTEM_FIELDS.keys()
    assert all(one.source for one in tell_fields(record).values())


def test_what_a_record_tells_of_gpus():
    share = {"device": "NVIDIA H100", "samples": 1, "samples_per_second": 1.0, "batches": 1}
    made = make_record(
        engine={"name": "tensorrt", "device": "2 x NVIDIA H100", "devices": [share, share]},
        environment={"gpus": [GPU] * 4},
    )
    widest = find_widest([make_record(), made, make_record()])
    told = {name: one.value for name, one in tell_fields(widest).items()}
    assert told["accelerators_per_node"] == "2"
    assert told["accelerator_model_name"] == "NVIDIA H100"
    assert told["accelerator_memory_capacity"] == "80 GiB"
    assert told["accelerator_frequency"] == "1980 MHz"
    assert "accelerator_interconnect" not in told


def test_a_template_is_written_and_asks_for_all_at_once(tmp_path):
    path = tmp_path / "system.yaml"
    told = tell_fields(make_record())
    with pytest.raises(UserError, match="template now"):
        read_system(path, told, "some")
    text = path.read_text()
    assert "# record: environment.cpu.model" in text
    given = yaml.safe_load(text)
    assert given.keys() == SYSTEM_FIELDS.keys() - {"division", "submitter"}
    with pytest.raises(UserError) as refused:
        read_system(path, told, "some")
    for name, must_say in SYSTEM_FIELDS.items():
        is_asked = must_say and name not in told and name not in ("division", "submitter")
        assert (f"\n  {name}: empty" in str(refused.value)) == is_asked
    path.write_text(yaml.safe_dump(SYSTEM))
    assert read_system(path, told, "some") == SYSTEM


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colling": "air"}, "colling: no such field; did you mean cooling?"),
        (
            {"status": "availble"},
            "status: availble; want available | preview | rdi; did you mean a",
        ),
        ({"system_type": "laptop"}, "system_type: laptop; want edge | "),
        ({"number_of_nodes": "one"}, "number_of_nodes: one; want a whole number"),
        ({"accelerators_per_node": "N/A"}, "accelerators_per_node: N/A; want a whole number"),
        ({"submitter": "Acme"}, "submitter: not in this file; --submitter has it"),
        ({"cooling": None}, "cooling: empty (air, liquid, passive)"),
    ],
)
def test_what_is_wrong_in_the_file(tmp_path, changes, said):
    path = tmp_path / "system.yaml"
    path.write_text(yaml.safe_dump(SYSTEM | changes))
    with pytest.raises(UserError) as refused:
        read_system(path, {}, "some")
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["a: [", "- a\n", "\x00"])
def test_what_is_no_yaml(tmp_path, text):
    path = tmp_path / "system.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"system\.yaml: (not YAML|want lines)"):
        read_system(path, {}, "some")


def test_numbers_become_text(tmp_path):
    """The checker takes a number 0 for an empty field."""
    path = tmp_path / "system.yaml"
    path.write_text(yaml.safe_dump(SYSTEM | {"accelerators_per_node": 0}))
    assert read_system(path, {}, "some")["accelerators_per_node"] == "0"


@pytest.mark.parametrize(
    ("name", "folder"),
    [("H100 x 2, PCIe", "H100_x_2_PCIe"), ("../a", "a"), ("DGX-1.5", "DGX-1.5"), ("ü", "system")],
)
def test_the_name_of_the_folder(name, folder):
    assert make_folder_name(name) == folder


def test_what_the_machine_tells(tmp_path):
    for number in range(4):
        topology = tmp_path / f"sys/devices/system/cpu/cpu{number}/topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text("0\n")
        (topology / "core_id").write_text(f"{number // 2}\n")
    cache = tmp_path / "sys/devices/system/cpu/cpu0/cache/index0"
    cache.mkdir(parents=True)
    for name, text in (("level", "1"), ("type", "Data"), ("size", "32K")):
        (cache / name).write_text(text)
    frequency = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    frequency.mkdir()
    (frequency / "cpuinfo_max_freq").write_text("3500000")
    for name, size in (("nvme0n1", "1953525168"), ("loop0", "8"), ("sr0", "0")):
        (tmp_path / "sys/block" / name / "queue").mkdir(parents=True)
        (tmp_path / "sys/block" / name / "size").write_text(size)
        (tmp_path / "sys/block" / name / "queue/rotational").write_text("0")
    (tmp_path / "sys/class/net/eth0/device").mkdir(parents=True)
    (tmp_path / "sys/class/net/lo").mkdir()
    assert {name: value for name, (value, _) in machine_facts.tell(tmp_path).items()} == {
        "host_processors_per_node": "1",
        "host_processor_core_count": "2",
        "host_processor_caches": "L1 Data 32K",
        "host_processor_frequency": "3500 MHz",
        "host_storage_capacity": "1000 GB",
        "host_storage_type": "NVMe SSD",
        "host_network_card_count": "1",
    }
    assert machine_facts.tell(tmp_path / "nothing") == {}


def test_another_machine_tells_nothing():
    assert not machine_facts.is_this_machine(make_record().environment)
    assert "host_processor_caches" not in tell()
