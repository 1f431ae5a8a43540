"""Whether the plan that is there is the one that a request asks for."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file, read_json
from ck_mlperf.machine.gpus import Gpu, find_gpus
from ck_mlperf.tensorrt.api import load_flavour
from ck_mlperf.tensorrt.api.interface import Flavour
from ck_mlperf.tensorrt.key import PlanKey, explain_reuse
from ck_mlperf.tensorrt.plan_file import is_as_built, judge_plan, measure_plan, recall_plan
from ck_mlperf.tensorrt.request import BuildRequest


@dataclasses.dataclass(frozen=True)
class Lookup:
    """The key that a request has on this machine, and why the plan that is there does not fit."""

    flavour: Flavour
    key: PlanKey
    faults: list[str]

    def explain(self) -> str:
        """Why the plan is reused or not, in words."""
        return explain_reuse(self.key, self.faults)


def look_up(
    request: BuildRequest,
    flavour: Flavour | None = None,
    find: Callable[[], list[Gpu]] = find_gpus,
    known_sha256: str | None = None,
) -> Lookup:
    """Compare the plan that is there with the request. Imports neither TensorRT nor ONNX.

    flavour: the request's, if it is loaded already. find: how to find the GPUs. known_sha256: the
    model's when the plan was built; the model and the plan are then hashed only if somebody has
    touched them since. Raises UserError if the request makes no sense on this machine.
    """
    request.check()
    flavour = flavour or load_flavour(request.flavour)
    conversion, recipe_sha256 = _read_conversion(request)
    measure = measure_plan if known_sha256 is None else recall_plan
    with ThreadPoolExecutor(1) as pool:
        # hashlib releases the GIL: the plan and the model are hashed at the same time.
        measured = pool.submit(measure, request.output)
        onnx_sha256 = _hash_model(request.model, request.output, known_sha256)
        key = PlanKey(
            onnx_sha256=onnx_sha256,
            source_sha256=str(conversion.get("source_sha256", onnx_sha256)),
            recipe_sha256=recipe_sha256,
            flavour=flavour.name,
            version=flavour.version,
            gpu=flavour.choose_gpu(request.compute_capabilities, find),
            precision=request.precision,
            input=request.input,
            max_batch=request.max_batch,
            opt_batch=request.opt_batch or request.max_batch,
            options=flavour.list_options(request.precision, request.limits),
            calibration=conversion.get("calibration"),
        )
        faults = judge_plan(request.output, key, measured.result())
    return Lookup(flavour, key, faults)


def _read_conversion(request: BuildRequest) -> tuple[Mapping[str, Any], str | None]:
    """What the recipe beside the model says of its conversion, and the recipe's hash."""
    path = request.model.with_suffix(".json")
    try:
        recipe = read_json(path)
    except FileNotFoundError:
        return {}, None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}. Convert the model again") from None
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    conversion = recipe.get("conversion") if isinstance(recipe, dict) else None
    if not isinstance(conversion, dict):
        return {}, digest
    precision = conversion.get("precision")
    if precision != request.file_precision:
        raise UserError(
            f"{request.model} was converted to {precision}, which is not what {request.precision} "
            f"is built from. Convert the model with --precision {request.file_precision} first"
        )
    return conversion, digest


def _hash_model(path: Path, plan: Path, known_sha256: str | None) -> str:
    if known_sha256 is not None:
        with contextlib.suppress(OSError):
            if is_as_built(path, plan):
                return known_sha256
    try:
        return hash_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give the path of an .onnx file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder. Give the path of an .onnx file") from None
