"""A plan on disk: model.plan, and beside it model.plan.json, which says what it is.

The sidecar holds the plan's key (all that the plan depends on) and the plan's own sha256. It is
written last: a plan that was cut off, changed or replaced does not match its sidecar, and is
neither reused nor deserialised.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any, cast

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file, open_regular, read_json, write_file
from ck_mlperf.common.tags import is_name
from ck_mlperf.models.recipe import CHOICES, ModelRecipe
from ck_mlperf.tensorrt.api.interface import IoTensor
from ck_mlperf.tensorrt.key import (
    PlanKey,
    Target,
    compare_keys,
    compare_target,
    complete_key,
    flatten,
    is_digest,
)

FORMAT = 1
# What reading JSON of another shape can raise.
_WRONG = (ValueError, TypeError, KeyError, AttributeError, OverflowError, UserError)


class PlanError(UserError):
    """A plan that cannot be used. The message says why, and what to do."""


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """What model.plan.json says.

    plan_sha256, plan_bytes: of the plan. recipe: of the ONNX file, with the plan's max_batch.
    build: "seconds" of the build, "peak_memory_bytes" (the most memory of the host that the
    building process held, its ru_maxrss), "log" (TensorRT's messages), "layers" (its inspector's
    JSON, or null, in which case the log says why), "timing_cache" (the file, or null).
    """

    key: PlanKey
    plan_sha256: str
    plan_bytes: int
    recipe: ModelRecipe
    inputs: tuple[IoTensor, ...]
    outputs: tuple[IoTensor, ...]
    build: dict[str, Any]

    @classmethod
    def of(
        cls,
        key: PlanKey,
        content: bytes,
        recipe: ModelRecipe,
        tensors: list[IoTensor],
        build: dict[str, Any],
    ) -> Sidecar:
        """The sidecar of a plan with this content. tensors: its inputs and outputs."""
        return cls(
            key,
            hashlib.sha256(content).hexdigest(),
            len(content),
            recipe,
            tuple(tensor for tensor in tensors if tensor.is_input),
            tuple(tensor for tensor in tensors if not tensor.is_input),
            build,
        )

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
    """Write a plan and its sidecar, each atomically, the sidecar last."""
    write_file(plan, content)
    write_file(sidecar_path(plan), json.dumps(sidecar.to_dict(), indent=1) + "\n")


def read_sidecar(plan: Path) -> Sidecar:
    """What is known of a plan, without reading the plan.

    Raises PlanError if the sidecar is missing, or is not what `write_plan` writes.
    """
    path = sidecar_path(plan)
    try:
        return _parse_sidecar(read_json(path))
    except (FileNotFoundError, NotADirectoryError):
        missing = f"{path}: no such file" if plan.exists() else f"{plan}: no such plan"
        raise PlanError(f"{missing}. {_describe_fix(plan, None)}") from None
    except _WRONG as error:
        reason = f"{error}" if isinstance(error, ValueError | UserError) else repr(error)
        raise PlanError(
            f"{path}: not a plan's sidecar: {reason}. {_describe_fix(plan, None)}"
        ) from None


def read_plan(plan: Path, target: Target, sidecar: Sidecar | None = None) -> bytes:
    """The plan's bytes, if they are those that were built, and built for `target`.

    sidecar: where it was read before.
    They are read once and hashed in memory, before anything deserialises them.
    Raises PlanError that names the difference and the fix.
    """
    sidecar = sidecar or read_sidecar(plan)
    differences = compare_target(sidecar.key, target)
    if differences:
        raise PlanError(
            f"{plan} was not built for this: {'; '.join(differences)}. "
            f"{_describe_fix(plan, sidecar.key)}"
        )
    try:
        with open_regular(plan) as file:
            content = file.read(sidecar.plan_bytes + 1)
    except FileNotFoundError:
        raise PlanError(f"{plan}: no such plan. {_describe_fix(plan, sidecar.key)}") from None
    fault = _compare_bytes(sidecar, len(content), hashlib.sha256(content).hexdigest())
    if fault:
        raise PlanError(f"{plan}: {fault}. {_describe_fix(plan, sidecar.key)}")
    return content


def judge_plan(plan: Path, wanted: PlanKey, found: tuple[int, str] | None) -> list[str]:
    """Why a plan is not the one that is wanted, one reason each; [] if it is, and is intact.

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
    """Size in bytes and sha256 of a plan, None if there is none."""
    try:
        return plan.stat().st_size, hash_file(plan)
    except (FileNotFoundError, NotADirectoryError):
        return None


def recall_plan(plan: Path) -> tuple[int, str] | None:
    """The answer of `measure_plan` without reading the plan, if it has not been touched.

    This quickly decides whether a plan must be built again; `read_plan` hashes what is run anyway.
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

    It goes by the ctime, which neither `touch` nor `cp -p` can set back.
    """
    return path.stat().st_ctime_ns <= sidecar_path(plan).stat().st_mtime_ns


def _compare_bytes(sidecar: Sidecar, size: int, digest: str) -> str | None:
    if size != sidecar.plan_bytes:
        cut = "cut off" if size < sidecar.plan_bytes else "longer than what was built"
        return f"the file is {cut}: {size} bytes in place of {sidecar.plan_bytes}"
    if digest != sidecar.plan_sha256:
        return (
            f"the file is damaged or was replaced: its sha256 is {digest[:16]}..., "
            f"that of the plan that was built is {sidecar.plan_sha256[:16]}..."
        )
    return None


def _describe_fix(plan: Path, key: PlanKey | None) -> str:
    """The command that builds a plan that fits, with what is known of the request."""
    precision, batch = (key.precision, key.max_batch) if key else ("fp32", "N")
    return (
        "Build it again: python -m ck_mlperf.tensorrt.build --model MODEL.onnx "
        f"--output {plan} --precision {precision} --max-batch {batch}, or by the command that "
        "made it (`ck install package --tags=...`)"
    )


def _parse_sidecar(data: Any) -> Sidecar:
    if not isinstance(data, dict):
        raise ValueError("want one JSON object")
    if data.get("format") != FORMAT or isinstance(data.get("format"), bool):
        raise ValueError(f"its format is {data.get('format')!r}, want {FORMAT}")
    digest, size = data["plan"]["sha256"], data["plan"]["bytes"]
    if not is_digest(digest) or type(size) is not int or size < 0:
        raise ValueError("the plan's sha256 or bytes are not valid")
    if not isinstance(data["build"], dict):
        raise ValueError("build is not an object")
    recipe = _parse_recipe(data["recipe"])
    key = PlanKey.from_dict(complete_key(data["key"], recipe.input.dtype))
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
        raise ValueError("inputs or outputs are not a list")
    for tensor in data:
        fits = isinstance(tensor["name"], str) and isinstance(tensor["dtype"], str)
        if not fits or any(type(size) is not int for size in tensor["shape"]):
            raise ValueError("an input or output has no valid name, dtype and shape")
    return tuple(
        IoTensor(tensor["name"], is_input, tensor["dtype"], tuple(tensor["shape"]))
        for tensor in data
    )


def _parse_recipe(data: Any) -> ModelRecipe:
    """The recipe, checked for all that an engine relies on."""
    recipe = ModelRecipe.from_dict(data)
    for name, value in flatten(recipe.to_dict(), "conversion").items():
        choices = CHOICES.get(name)
        if choices is not None:
            fits = value in choices and not isinstance(value, bool)
        elif name in ("classes", "max_batch"):
            fits = type(value) is int and value >= 1
        elif name == "name":
            fits = is_name(value)
        elif name in ("input.name", "output.name"):
            fits = isinstance(value, str) and bool(value)
        elif name in ("mean", "scale"):
            fits = len(value) == 3
        else:
            fits = True  # image.*: ImageRecipe checks them
        if not fits:
            raise ValueError(f"recipe: {name} = {value!r} is not valid")
    step = recipe.input.step
    is_number = type(step) in (int, float) and 0 < cast(float, step) < math.inf
    if (recipe.input.dtype == "int8") != (step is not None) or (step is not None and not is_number):
        raise ValueError(f"recipe: input.step = {step!r} is not valid for {recipe.input.dtype}")
    return recipe
