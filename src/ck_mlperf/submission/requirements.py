"""What the round of today wants of a ResNet-50 submission, in the submission checker's words.

Source: mlcommons/inference, tools/submission/submission_checker/constants.py at commit
b66003e10e2db4b8c36a448b0545ec90fcc6e9e9, its newest version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ck_mlperf.results.rules import load_rules

PERFORMANCE_FOLDER: Final = "performance/run_1"
"""Of a scenario, and of a compliance test."""
VERSION: Final = "v6.1"
BENCHMARK: Final = "resnet50"
"""The benchmark's folder."""
MODEL: Final = "resnet"
"""The checker's name of the benchmark."""
OTHER_MODELS: Final = (
    *("3d-unet-99", "3d-unet-99.9", "bert-99", "bert-99.9", "deepseek-r1", "dlrm-v3"),
    *("e2e-rag-db", "e2e-rag-qna", "gpt-oss-120b", "llama2-70b-99.9", "llama3.1-8b"),
    *("llama3.1-8b-edge", "qwen3-vl-235b-a22b", "qwen3.6-27b", "rgat", "stable-diffusion-xl"),
    *("wan-2.2-t2v-a14b", "whisper", "yolo-95", "yolo-99"),
)
"""Its other benchmarks, which are neither written nor checked here."""
DIVISIONS: Final = ("closed", "open", "network")
STATUSES: Final = ("available", "preview", "rdi")

REQUIRED_SCENARIOS: Final = {
    "edge": ("SingleStream", "MultiStream", "Offline"),
    "datacenter,edge": ("SingleStream", "MultiStream", "Offline", "Server"),
    "edge,datacenter": ("SingleStream", "MultiStream", "Offline", "Server"),
}
"""By type of system. The round takes no ResNet-50 of a datacenter system in closed."""
SYSTEM_TYPES: Final = (*REQUIRED_SCENARIOS, "datacenter")
INFERABLE: Final = {
    ("singlestream", "multistream"),
    ("singlestream", "offline"),
    ("multistream", "offline"),
}
"""(scenario that ran, scenario of the result), of an edge system."""

DATASET_SIZE: Final = 50_000
LEAST_ACCURACY: Final = 76.46 * 0.99
SAMPLES_IN_MEMORY: Final = 1024
LEAST_DURATION_MS: Final = 600_000
OFFLINE_SAMPLES: Final = 24_576
SERVER_BOUND_NS: Final = 15_000_000
SEEDS: Final[Mapping[str, int]] = load_rules()["rounds"][VERSION]["seeds"]
RESULT_KEYS: Final = {
    "Offline": "result_samples_per_second",
    "SingleStream": "early_stopping_latency_ss",
    "MultiStream": "early_stopping_latency_ms",
    "Server": "result_completed_samples_per_sec",
}
"""What is reported of a scenario: the key in LoadGen's detail log."""
ACCURACY_DELTA_PERCENT: Final = 1
"""How far TEST01's accuracy may be from the baseline's, where single answers differ."""

MOST_LOG_BYTES: Final = 10 * 1024
"""A larger accuracy log is not truncated."""

MEASUREMENT_FIELDS: Final = (
    "input_data_types",
    "retraining",
    "starting_weights_filename",
    "weight_data_types",
    "weight_transformations",
)
SYSTEM_FIELDS: Final = {
    "division": True,
    "submitter": True,
    "status": True,
    "system_name": True,
    "number_of_nodes": True,
    "host_processor_model_name": True,
    "host_processors_per_node": True,
    "host_processor_core_count": True,
    "host_memory_capacity": True,
    "host_storage_capacity": True,
    "host_storage_type": True,
    "accelerators_per_node": True,
    "accelerator_model_name": True,
    "accelerator_memory_capacity": True,
    "framework": True,
    "operating_system": True,
    "system_type": True,
    "other_software_stack": True,
    "host_processor_frequency": False,
    "host_processor_caches": False,
    "host_memory_configuration": True,
    "host_processor_interconnect": False,
    "host_networking": True,
    "host_networking_topology": True,
    "accelerator_frequency": False,
    "accelerator_host_interconnect": True,
    "accelerator_interconnect": True,
    "accelerator_interconnect_topology": False,
    "accelerator_memory_configuration": True,
    "accelerator_on-chip_memories": False,
    "cooling": True,
    "hw_notes": False,
    "sw_notes": False,
    "host_network_card_count": True,
    "system_type_detail": False,
}
"""Fields of a system's description, and whether they must not be empty."""
NETWORK_FIELDS: Final = (
    "network_type",
    "network_media",
    "network_rate",
    "nic_loadgen",
    "number_nic_loadgen",
    "net_software_stack_loadgen",
    "network_protocol",
    "number_connections",
    "nic_sut",
    "number_nic_sut",
    "net_software_stack_sut",
    "network_topology",
)
"""More of them, where `is_network` is there."""


def find_model(benchmark: str, mapping: Mapping[str, str]) -> str:
    """The checker's name of the benchmark in a folder of that name; itself where it has none.

    mapping: of model_mapping.json in open.
    """
    if benchmark in (MODEL, BENCHMARK, "mobilenet"):
        return MODEL
    if benchmark in mapping:
        return mapping[benchmark]
    is_alike = any(name in benchmark for name in ("mobilenet", "efficientnet", "resnet50"))
    return MODEL if is_alike else benchmark
