"""A plan on disk: model.plan, and beside it model.plan.json, which says what it is.

The sidecar carries the plan's key (all that the plan depends on) and the plan's own sha256. It is
written last: a plan that was cut off, changed or replaced has no sidecar that fits, and is neither
reused nor deserialised.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file, write_file
from ck_mlperf.machine.gpus import Gpu
from ck_mlperf.models.recipe import CHOICES, ModelRecipe
from ck_mlperf.tensorrt.flavour import FLAVOURS, PRECISIONS, Flavour, IoTensor

FORMAT = 1
# What samples are, by the words of the tags: numpy's names of their types.
INPUTS = {"uint8": "uint8", "int8": "int8", "fp16": "float16", "fp32": "float32"}
_MOST_SIDECAR_BYTES = 64 << 20


class PlanError(UserError):
    """A plan that cannot be used; the message says why, and what to do."""


@dataclasses.dataclass(frozen=True)
class PlanKey:
    """All that a plan depends on; two builds with equal keys are interchangeable.

    onnx_sha256, recipe_sha256: of the ONNX file that was built, and of the content of the JSON
    beside it (None: there is none). source_sha256: of the ONNX file that this was converted from.
    gpu: {"name", "compute_capability"} of the GPU that built it (TensorRT), or
    {"compute_capabilities": [...]} that it was built for (TensorRT for RTX).
    input: what the samples are, one of INPUTS: 'uint8', images that a kernel before the plan
    prepares, or the type of the plan's own input, in which they are prepared when they are loaded.
    max_batch, opt_batch: the profile's largest batch, and the one it is tuned for.
    options: `Flavour.list_options`. calibration: what int8 was calibrated with, None where not.
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
        """The opposite of `to_dict`. Raises ValueError that names the part that is wrong."""
        parts = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(data, dict) or set(data) != parts:
            raise ValueError("the key has not the parts that it should have")
        for name in ("onnx_sha256", "source_sha256", "recipe_sha256"):
            value = data[name]
            is_absent = value is None and name == "recipe_sha256"
            if not is_absent and not _is_digest(value):
                raise ValueError(f"{name} is no sha256")
        if not isinstance(data["version"], str):
            raise ValueError("version is no text")
        for name, choices in (
            ("flavour", tuple(FLAVOURS)),
            ("precision", PRECISIONS),
            ("input", tuple(INPUTS)),
        ):
            if data[name] not in choices:
                raise ValueError(f"{name} is not {' or '.join(choices)}")
        for name in ("max_batch", "opt_batch"):
            if type(data[name]) is not int or data[name] < 1:
                raise ValueError(f"{name} is no whole number, 1 or more")
        for name in ("gpu", "options", "calibration"):
            if not isinstance(data[name], dict) and (name != "calibration" or data[name]):
                raise ValueError(f"{name} is no object")
        _check_gpu(data["gpu"])
        return cls(**data)


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a plan is to run. gpu None: not known, then TensorRT itself has to refuse."""

    flavour: str
    version: str
    gpu: Gpu | None

    @classmethod
    def of(cls, flavour: Flavour, gpu: Gpu | None) -> Target:
        return cls(flavour.name, flavour.version, gpu)


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """What model.plan.json says.

    plan_sha256, plan_bytes: of the plan. recipe: of the ONNX file, with the plan's max_batch.
    inputs, outputs: {"name", "dtype", "shape"}, -1 where the batch is free. build: "seconds" of
    the build, "peak_memory_bytes" (the most memory of the host that the building process held,
    its ru_maxrss), "log" (TensorRT's messages), "layers" (its inspector's JSON, or null, and then
    the log says why), "timing_cache" (the file, or null).
    """

    key: PlanKey
    plan_sha256: str
    plan_bytes: int
    recipe: ModelRecipe
    inputs: tuple[IoTensor, ...]
    outputs: tuple[IoTensor, ...]
    build: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "key": self.key.to_dict(),
            "plan": {"sha256": self.plan_sha256, "bytes": self.plan_bytes},
            "recipe": self.recipe.to_dict(),
            "inputs": [tensor.to_dict() for tensor in self.inputs],
            "outputs": [tensor.to_dict() for tensor in self.outputs],
            "build": self.build,
        }


def sidecar_path(plan: Path) -> Path:
    """model.plan.json of model.plan."""
    return plan.with_name(plan.name + ".json")


def write_plan(plan: Path, content: bytes, sidecar: Sidecar) -> None:
    """Put a plan and its sidecar in place, each whole, the sidecar last."""
    write_file(plan, content)
    write_file(sidecar_path(plan), json.dumps(sidecar.to_dict(), indent=1) + "\n")


def read_sidecar(plan: Path) -> Sidecar:
    """What is known of a plan; its bytes are not looked at.

    Raises PlanError where the sidecar is missing, no JSON or not in the shape it should have.
    """
    path = sidecar_path(plan)
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_SIDECAR_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        missing = f"{path}: no such file" if plan.exists() else f"{plan}: no such plan"
        raise PlanError(f"{missing}. {_describe_mend(plan, None)}") from None
    try:
        if len(content) > _MOST_SIDECAR_BYTES:
            raise ValueError("too large")
        return _parse_sidecar(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, UserError) as error:
        reason = f"{error}" if isinstance(error, ValueError | UserError) else repr(error)
        raise PlanError(
            f"{path}: not what was written beside a plan: {reason}. {_describe_mend(plan, None)}"
        ) from None


def read_plan(plan: Path, target: Target) -> bytes:
    """The plan's bytes, if they are those that were built and if they were built for `target`.

    They are read once, hashed as they are in memory, and nothing deserialises them before.
    Raises PlanError that names the difference and how to mend it.
    """
    sidecar = read_sidecar(plan)
    differences = _compare_target(sidecar.key, target)
    if differences:
        raise PlanError(
            f"{plan} was not built for this: {'; '.join(differences)}. "
            f"{_describe_mend(plan, sidecar.key)}"
        )
    try:
        with plan.open("rb") as file:
            content = file.read(sidecar.plan_bytes + 1)
    except FileNotFoundError:
        raise PlanError(f"{plan}: no such plan. {_describe_mend(plan, sidecar.key)}") from None
    fault = _compare_bytes(sidecar, len(content), hashlib.sha256(content).hexdigest())
    if fault:
        raise PlanError(f"{plan}: {fault}. {_describe_mend(plan, sidecar.key)}")
    return content


def judge_plan(plan: Path, wanted: PlanKey, found: tuple[int, str] | None) -> list[str]:
    """Why a plan is not the one that is wanted, one reason each; [] where it is, and whole.

    found: the plan's size and sha256, as `measure_plan` gives them.
    """
    if found is None:
        return [f"there is no plan at {plan}"]
    try:
        sidecar = read_sidecar(plan)
    except PlanError as error:
        return [str(error).partition(". Build it")[0]]
    differences = compare_keys(wanted, sidecar.key)
    if differences:
        return differences
    fault = _compare_bytes(sidecar, *found)
    return [fault] if fault else []


def measure_plan(plan: Path) -> tuple[int, str] | None:
    """Size in bytes and sha256 of a plan, None where there is none."""
    try:
        return plan.stat().st_size, hash_file(plan)
    except (FileNotFoundError, NotADirectoryError):
        return None


def recall_plan(plan: Path) -> tuple[int, str] | None:
    """`measure_plan`'s answer without reading the plan, where nobody has touched it since.

    That is for finding out quickly whether a plan is to be built again: `read_plan` hashes what is
    run in any case.
    """
    try:
        sidecar = read_sidecar(plan)
        if is_as_built(plan, plan) and plan.stat().st_size == sidecar.plan_bytes:
            return sidecar.plan_bytes, sidecar.plan_sha256
    except (PlanError, OSError):
        pass
    return measure_plan(plan)


def is_as_built(path: Path, plan: Path) -> bool:
    """Whether a file has not been written, replaced or moved since a plan's sidecar was written.

    By the time of the file's last change, which neither `touch` nor `cp -p` can set back.
    """
    return path.stat().st_ctime_ns <= sidecar_path(plan).stat().st_mtime_ns


def compare_keys(wanted: PlanKey, found: PlanKey) -> list[str]:
    """How the key of a plan that was found differs from the one that is wanted, one line each."""
    flat_wanted, flat_found = _flatten(wanted.to_dict()), _flatten(found.to_dict())
    return [
        f"{name} is {_show(flat_wanted.get(name))}, "
        f"the plan was built with {_show(flat_found.get(name))}"
        for name in dict.fromkeys([*flat_wanted, *flat_found])
        if flat_wanted.get(name) != flat_found.get(name)
    ]


def explain_reuse(wanted: PlanKey, faults: Sequence[str]) -> str:
    """Why a plan is reused or not, in words, for `judge_plan`'s answer."""
    if faults:
        return "not reused: " + "; ".join(faults)
    parts = _flatten(wanted.to_dict())
    shown = ", ".join(f"{name} {_show(value)}" for name, value in parts.items())
    return f"reused because all {len(parts)} parts of the key agree: {shown}"


def _compare_bytes(sidecar: Sidecar, size: int, digest: str) -> str | None:
    if size != sidecar.plan_bytes:
        cut = "cut off" if size < sidecar.plan_bytes else "longer than what was built"
        return f"the file is {cut}: {size} bytes in place of {sidecar.plan_bytes}"
    if digest != sidecar.plan_sha256:
        return (
            f"the file is damaged or another one: its sha256 is {digest[:16]}..., "
            f"that of the plan that was built {sidecar.plan_sha256[:16]}..."
        )
    return None


def _compare_target(key: PlanKey, target: Target) -> list[str]:
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


def _describe_mend(plan: Path, key: PlanKey | None) -> str:
    """The command that makes a fitting plan, with what is known of the request."""
    precision, batch = (key.precision, key.max_batch) if key else ("fp32", "N")
    return (
        "Build it again: python -m ck_mlperf.tensorrt.build --model MODEL.onnx "
        f"--output {plan} --precision {precision} --max-batch {batch}, or what made it "
        "(`ck install package --tags=...`)"
    )


def _parse_sidecar(data: Any) -> Sidecar:
    if not isinstance(data, dict):
        raise ValueError("want one JSON object")
    if data.get("format") != FORMAT or isinstance(data.get("format"), bool):
        raise ValueError(f"its format is {data.get('format')!r}, want {FORMAT}")
    digest, size = data["plan"]["sha256"], data["plan"]["bytes"]
    if not _is_digest(digest) or type(size) is not int or size < 0:
        raise ValueError("sha256 or bytes of the plan make no sense")
    if not isinstance(data["build"], dict):
        raise ValueError("build is no object")
    key = PlanKey.from_dict(data["key"])
    recipe = _parse_recipe(data["recipe"])
    if recipe.max_batch != key.max_batch:
        raise ValueError("max_batch of the key and of the recipe differ")
    return Sidecar(
        key,
        digest,
        size,
        recipe,
        _parse_tensors(data["inputs"], True),
        _parse_tensors(data["outputs"], False),
        data["build"],
    )


def _parse_tensors(data: Any, is_input: bool) -> tuple[IoTensor, ...]:
    if not isinstance(data, list) or not data:
        raise ValueError("inputs and outputs are no lists")
    for tensor in data:
        fits = isinstance(tensor["name"], str) and isinstance(tensor["dtype"], str)
        if not fits or any(type(size) is not int for size in tensor["shape"]):
            raise ValueError("an input or output has no name, dtype or shape")
    return tuple(
        IoTensor(tensor["name"], is_input, tensor["dtype"], tuple(tensor["shape"]))
        for tensor in data
    )


def _parse_recipe(data: Any) -> ModelRecipe:
    """The recipe, as strictly as an engine relies on it."""
    recipe = ModelRecipe.from_dict(data)
    for name, value in _flatten(recipe.to_dict(), "conversion").items():
        choices = CHOICES.get(name)
        if choices is not None:
            fits = value in choices and not isinstance(value, bool)
        elif name in ("classes", "max_batch"):
            fits = type(value) is int and value >= 1
        elif name in ("name", "input.name", "output.name"):
            fits = isinstance(value, str) and bool(value)
        elif name in ("mean", "scale"):
            fits = len(value) == 3
        else:
            fits = True  # image.*: ImageRecipe checks them
        if not fits:
            raise ValueError(f"recipe: {name} = {value!r} makes no sense")
    step = recipe.input.step
    is_number = type(step) in (int, float) and 0 < cast(float, step) < math.inf
    if (recipe.input.dtype == "int8") != (step is not None) or (step is not None and not is_number):
        raise ValueError(f"recipe: input.step = {step!r} makes no sense for {recipe.input.dtype}")
    return recipe


def _check_gpu(gpu: Mapping[str, Any]) -> None:
    if set(gpu) == {"compute_capabilities"}:
        values = gpu["compute_capabilities"]
        if not isinstance(values, list) or not values:
            raise ValueError("gpu.compute_capabilities is no list")
    elif set(gpu) == {"name", "compute_capability"}:
        values = list(gpu.values())
    else:
        raise ValueError("gpu has not the parts that it should have")
    if not all(isinstance(value, str) for value in values):
        raise ValueError("gpu has parts that are no text")


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _flatten(data: Mapping[str, Any], *whole: str) -> dict[str, Any]:
    """Nested objects as dotted names, except those named in `whole`."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict) and value and name not in whole:
            flat.update({f"{name}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            flat[name] = value
    return flat


def _show(value: Any) -> str:
    """A value as a person reads it; of a hash, what tells it apart."""
    if _is_digest(value):
        return f"{value[:16]}..."
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    return "none" if value is None else str(value)
