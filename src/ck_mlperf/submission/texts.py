"""The files of a submission that say in words or fields what a record says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ck_mlperf.loadgen.user_conf import MODEL
from ck_mlperf.results.record import Model, Record
from ck_mlperf.results.repeat import repeat_run
from ck_mlperf.submission.runs import ScenarioRuns, describe_precision, describe_subject

# user.conf's keys and the attributes of LoadGen's TestSettings that hold them, with the factor
# from the attribute's unit to the key's.
_ALL_KEYS: dict[str, tuple[str, float]] = {
    "min_duration": ("min_duration_ms", 1),
    "max_duration": ("max_duration_ms", 1),
    "min_query_count": ("min_query_count", 1),
    "max_query_count": ("max_query_count", 1),
}
_KEYS: dict[str, dict[str, tuple[str, float]]] = {
    "SingleStream": {
        "target_latency": ("single_stream_expected_latency_ns", 1e-6),
        "target_latency_percentile": ("single_stream_target_latency_percentile", 100),
    },
    "MultiStream": {
        "target_latency": ("multi_stream_expected_latency_ns", 1e-6),
        "target_latency_percentile": ("multi_stream_target_latency_percentile", 100),
        "samples_per_query": ("multi_stream_samples_per_query", 1),
    },
    "Server": {
        "target_qps": ("server_target_qps", 1),
        "target_latency": ("server_target_latency_ns", 1e-6),
        "target_latency_percentile": ("server_target_latency_percentile", 100),
        "coalesce_queries": ("server_coalesce_queries", 1),
        "max_async_queries": ("server_max_async_queries", 1),
    },
    "Offline": {"target_qps": ("offline_expected_qps", 1)},
}
_NO_COMMAND = "# none can be given: a variable of the run could make a command do anything else"
_LIMITS = ("max_duration", "max_query_count", "max_async_queries")  # 0: no limit


def make_accuracy_line(record: Record) -> str:
    """The accuracy as MLPerf's accuracy-imagenet.py prints it."""
    accuracy = record.accuracy
    assert accuracy is not None
    return f"accuracy={accuracy.top1_percent:.3f}%, good={accuracy.good}, total={accuracy.total}\n"


def make_user_conf(record: Record) -> str:
    """The user.conf that gives the settings in force, from wherever they came."""
    lines = ["# The settings in force. mlperf.conf is LoadGen's own, unchanged."]
    for key, (name, factor) in (_ALL_KEYS | _KEYS[record.scenario]).items():
        value = record.settings.loadgen.get(name)
        if not isinstance(value, (int, float)) or (key in _LIMITS and not value):
            continue
        lines.append(f"{MODEL}.{record.scenario}.{key} = {round(value * factor, 6):.15g}")
    return "\n".join(lines) + "\n"


def make_measurements(record: Record) -> str:
    """measurements.json."""
    model = record.model
    return _to_json(
        {
            "input_data_types": model.recipe["input"]["dtype"],
            "retraining": "No",
            "starting_weights_filename": _describe_source(model),
            "weight_data_types": describe_precision(record),
            "weight_transformations": _describe_conversion(model.recipe.get("conversion") or {}),
        }
    )


def make_readme(folder: str, runs: ScenarioRuns, labels: Sequence[str], inferred: bool) -> str:
    """README.md of a scenario. labels: why it is no official result. inferred: from another one."""
    record = runs.performance.record
    lines = [f"# {record.model.name}, {folder}", ""]
    if labels:
        lines += ["**Not a result by MLPerf's rules**:", *(f"- {label}" for label in labels), ""]
    if inferred:
        lines += [f"Inferred from the run in {record.scenario}, not measured.", ""]
    known_by = record.dataset.known_by
    images = f" The images are known by {known_by}." if known_by else ""
    lines += [f"{describe_subject(record)}.{images}", "", "The commands that ran:", ""]
    for run in runs.list():
        lines += [f"    {repeat_run(run.record) or _NO_COMMAND}", ""]
    commit = record.environment.repository
    lines += [
        f"By ck-mlperf{f' at commit {commit.commit}' if commit else ''}, LoadGen "
        f"{record.verdicts.loadgen.version}; see src/. Dependencies:",
        *(f"- {dep.key} {dep.version}: {','.join(dep.tags)}" for dep in record.deps),
    ]
    return "\n".join(lines) + "\n"


def make_calibration(record: Record) -> str:
    """calibration.md: how an int8 model was calibrated, or that nothing was."""
    conversion: Mapping[str, Any] = record.model.recipe.get("conversion") or {}
    calibration: Mapping[str, Any] | None = conversion.get("calibration")
    if calibration is None:
        return (
            f"# Calibration\n\nNothing was calibrated: {record.model.name} computes in "
            f"{describe_precision(record)}, with the weights that were published.\n"
        )
    libraries = ", ".join(f"{name} {v}" for name, v in conversion.get("libraries", {}).items())
    lines = [
        "# Calibration of int8",
        "",
        f"The ranges of {record.model.name}'s activations were computed from "
        f"{calibration.get('count')} images by the method `{calibration.get('method')}`"
        f"{f' with {libraries}' if libraries else ''}. Weights are quantized per channel and "
        "activations per tensor, symmetrically, by pairs of QuantizeLinear and DequantizeLinear "
        "nodes in the ONNX file. Nothing was trained again.",
        "",
        f"- source: sha256 {conversion.get('source_sha256')}",
        f"- calibration images, preprocessed: sha256 {calibration.get('images_sha256')}",
        f"- their list: {record.model.calibration_list or 'one of its own'}, sha256 "
        f"{calibration.get('source_list_sha256') or 'not noted'}",
    ]
    return "\n".join(lines) + "\n"


def make_mapping(benchmark: str, model: str) -> str:
    """model_mapping.json of open: which benchmark a folder is of."""
    return _to_json({benchmark: model})


def make_system(fields: Mapping[str, str], labels: Sequence[str]) -> str:
    """systems/NAME.json. labels: why the results are no official ones."""
    notes = [f"not a result by MLPerf's rules: {label}" for label in labels]
    given = fields.get("sw_notes")
    return _to_json({**fields, "sw_notes": "; ".join([given, *notes] if given else notes)})


def _describe_source(model: Model) -> str:
    """The file that the weights came from."""
    source = model.source
    name = source.url.rpartition("/")[2] if source and source.url else f"{model.name}.onnx"
    return f"{name} (md5 {source.md5})" if source and source.md5 else name


def _describe_conversion(conversion: Mapping[str, Any]) -> str:
    if not conversion:
        return "none: the ONNX file as it was published"
    words = [f"{conversion.get('precision')}, input {conversion.get('input')}"]
    words.append(f"output {conversion.get('output')}")
    if conversion.get("calibration"):
        words.append("quantized after training (see calibration.md)")
    return "converted from ONNX: " + ", ".join(words)


def _to_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
