"""PlanKey: all that a plan depends on, and how two keys compare."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ck_mlperf.machine.gpus import Gpu
from ck_mlperf.models.precisions import PLAN_INPUTS, PRECISIONS
from ck_mlperf.tensorrt.api.interface import INPUT_FORMATS
from ck_mlperf.tensorrt.names import MODULES


@dataclasses.dataclass(frozen=True)
class PlanKey:
    """All that a plan depends on. Two builds with equal keys are interchangeable.

    onnx_sha256, recipe_sha256: of the ONNX file that was built, and of the content of the JSON
    beside it (None: there is none). source_sha256: of the ONNX file that this was converted from.
    gpu: {"name", "compute_capability"} of the GPU that built it (TensorRT), or
    {"compute_capabilities": [...]} that it was built for (TensorRT for RTX).
    input: what the samples are, one of PLAN_INPUTS: 'uint8', images that a kernel prepares on the
    GPU, or the type of the plan's own input, in which they are prepared when they are loaded.
    max_batch, opt_batch: the profile's largest batch, and the one it is tuned for.
    options: `Flavour.list_options`. calibration: what int8 was calibrated with, else None.
    """

    onnx_sha256: str
    source_sha256: str
    recipe_sha256: str | None
    flavour: str
    version: str
    gpu: dict[str, Any]
    precision: str
    input: str
    max_batch: int
    opt_batch: int
    options: dict[str, Any]
    calibration: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> PlanKey:
        """The inverse of `to_dict`. Raises ValueError that names the part that is wrong."""
        parts = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(data, dict) or set(data) != parts:
            raise ValueError("the parts of the key are not those that it should have")
        for name in ("onnx_sha256", "source_sha256", "recipe_sha256"):
            value = data[name]
            is_absent = value is None and name == "recipe_sha256"
            if not is_absent and not is_digest(value):
                raise ValueError(f"{name} is not a sha256")
        if not isinstance(data["version"], str):
            raise ValueError("version is not a string")
        for name, choices in (
            ("flavour", MODULES),
            ("precision", PRECISIONS),
            ("input", tuple(PLAN_INPUTS)),
        ):
            if data[name] not in choices:
                raise ValueError(f"{name} is not {' or '.join(choices)}")
        for name in ("max_batch", "opt_batch"):
            if type(data[name]) is not int or data[name] < 1:
                raise ValueError(f"{name} is not a whole number, 1 or more")
        for name in ("gpu", "options", "calibration"):
            if not isinstance(data[name], dict) and (name != "calibration" or data[name]):
                raise ValueError(f"{name} is not an object")
        _check_gpu(data["gpu"])
        return cls(**data)


def complete_key(data: Any, dtype: str) -> Any:
    """A key as JSON holds it, completed if it was written before plans had `input`.

    dtype: of the plan's input. With uint8 or float32 the same plan would be built now, without
    limits: the builder could not choose the input's layout then, and cannot now.
    """
    if not isinstance(data, dict) or "input" in data or dtype not in ("uint8", "float32"):
        return data
    added: dict[str, Any] = {
        "previews": [],
        "input_formats": {name: list(formats) for name, formats in INPUT_FORMATS.items()},
        **dict.fromkeys(("builder_level", "aux_streams", "tiling_level")),
    }
    word = next(word for word, name in PLAN_INPUTS.items() if name == dtype)
    return {**data, "input": word, "options": {**added, **data["options"]}}


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a plan is to run. gpu: None if it is not known; TensorRT itself must refuse then."""

    flavour: str
    version: str
    gpu: Gpu | None


def compare_keys(wanted: PlanKey, found: PlanKey) -> list[str]:
    """How the key of a plan that was found differs from the one that is wanted, one line each."""
    flat_wanted, flat_found = flatten(wanted.to_dict()), flatten(found.to_dict())
    return [
        f"{name} is {_show(flat_wanted.get(name))}, "
        f"the plan was built with {_show(flat_found.get(name))}"
        for name in dict.fromkeys([*flat_wanted, *flat_found])
        if flat_wanted.get(name) != flat_found.get(name)
    ]


def compare_target(key: PlanKey, target: Target) -> list[str]:
    """Why a plan with this key cannot run on the target, one line each; [] if it can."""
    differences = []
    if key.flavour != target.flavour:
        differences.append(f"flavour is {target.flavour}, the plan was built with {key.flavour}")
    elif key.version != target.version:
        differences.append(f"version is {target.version}, the plan was built with {key.version}")
    if target.gpu is not None:
        built_for = key.gpu.get("compute_capabilities")
        if built_for is not None:
            if target.gpu.compute_capability not in built_for:
                wanted = f"compute capability {' or '.join(built_for)}"
                differences.append(f"GPU is {target.gpu}, the plan was built for {wanted}")
        elif Gpu(**key.gpu) != target.gpu:
            differences.append(f"GPU is {target.gpu}, the plan was built on {Gpu(**key.gpu)}")
    return differences


def explain_reuse(wanted: PlanKey, faults: Sequence[str]) -> str:
    """Why a plan is reused or not, in words. faults: the answer of `judge_plan`."""
    if faults:
        return "not reused: " + "; ".join(faults)
    parts = flatten(wanted.to_dict())
    shown = ", ".join(f"{name} {_show(value)}" for name, value in parts.items())
    return f"reused because all {len(parts)} parts of the key agree: {shown}"


def describe_gpu(gpu: Mapping[str, Any]) -> str:
    """The key's gpu, for people."""
    capabilities = gpu.get("compute_capabilities")
    return f"compute capability {', '.join(capabilities)}" if capabilities else str(Gpu(**gpu))


def is_digest(value: Any) -> bool:
    """Whether this is a sha256 in hex."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def flatten(data: Mapping[str, Any], *whole: str) -> dict[str, Any]:
    """Nested objects as dotted names, except those named in `whole`."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict) and value and name not in whole:
            flat.update({f"{name}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            flat[name] = value
    return flat


def _check_gpu(gpu: Mapping[str, Any]) -> None:
    if set(gpu) == {"compute_capabilities"}:
        values = gpu["compute_capabilities"]
        if not isinstance(values, list) or not values:
            raise ValueError("gpu.compute_capabilities is not a list")
    elif set(gpu) == {"name", "compute_capability"}:
        values = list(gpu.values())
    else:
        raise ValueError("the parts of gpu are not those that it should have")
    if not all(isinstance(value, str) for value in values):
        raise ValueError("a part of gpu is not a string")


def _show(value: Any) -> str:
    """A value for people; a hash shortened, but long enough to tell it apart."""
    if is_digest(value):
        return f"{value[:16]}..."
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    return "none" if value is None else str(value)
