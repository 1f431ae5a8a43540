"""What is there to make and run plans with, and which plans are what would be built now.

    python -m ck_mlperf.tensorrt.survey < question.json

One process for all that a `ck` command wants to know; its interpreter is the one that runs. The
question, each part of which may be missing:

    sites   folders into which CK has installed a TensorRT
    gpus    the answer's, where it is known already: the GPUs are not asked again
    plans   [{"plan", "model", "flavour", "major", "precision", "max_batch", ...}], see `judge`

The answer:

    found       [[site, module, version], ...] of each TensorRT; site "": on Python's own path
    gpus        [{"name", "compute_capability"}, ...]
    has_driver  whether there is a driver, also where nothing names a GPU
    plans       [{"faults": [...]} or {"error": "..."}, ...] in the question's order
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.machine.gpus import Gpu, find_gpus
from ck_mlperf.tensorrt.build import BuildRequest, look_up
from ck_mlperf.tensorrt.flavour import FLAVOURS, Flavour, find_version
from ck_mlperf.tensorrt.plan import judge_plan, measure_plan, read_sidecar, recall_plan

Found = tuple[str, str, str]


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked. Raises UserError where the GPUs cannot be asked."""
    found = find_flavours(question.get("sites", []))
    known = question.get("gpus")
    gpus = find_gpus() if known is None else [Gpu(**gpu) for gpu in known]
    return {
        "found": found,
        "gpus": [dataclasses.asdict(gpu) for gpu in gpus],
        "has_driver": bool(gpus) or _has_driver(),
        "plans": [_judge(plan, found, gpus) for plan in question.get("plans", [])],
    }


def find_flavours(sites: Sequence[str]) -> list[Found]:
    """(site, module, version) of each TensorRT on Python's own path, site '', and in the sites."""
    path, found = list(sys.path), []
    try:
        for site in ["", *sites]:
            sys.path[:] = [site, *path] if site else path
            for name in FLAVOURS:
                version = find_version(name)
                if version is not None and (not site or ("", name, version) not in found):
                    found.append((site, name, version))
    finally:
        sys.path[:] = path
    return found


def judge(plan: Mapping[str, Any], found: Sequence[Found], gpus: Sequence[Gpu]) -> list[str]:
    """Why a plan is not what its request would build now, one reason each; [] where it is.

    plan: "plan" and "model" (the converted ONNX file, '' where it is not known: then what the plan
    was built for is compared, and the rest is taken as it is) are paths; "flavour" the module and
    "major" the version's, None: any; "precision", "input", "max_batch" and, optionally,
    "opt_batch", "workspace_mib", "builder_level", "aux_streams", "tiling_level" and
    "compute_capabilities" as for `ck_mlperf.tensorrt.build`. "onnx_sha256"
    (optional): of the model, as it was known when the plan was built. Files that have not changed
    since then are not hashed, unless "whole". "plan_sha256" (optional): as CK has registered it.

    Raises UserError where the request makes no sense on this machine.
    """
    path, model = Path(plan["plan"]), Path(plan["model"])
    module, major, is_whole = plan["flavour"], plan["major"], plan.get("whole", False)
    versions = [
        version
        for _, name, version in found
        if name == module and major in (None, version.partition(".")[0])
    ]
    if not versions:
        what = module if major is None else f"{module} {major}"
        return [f"{what} is not installed any more, with which it was built"]
    flavour = Flavour(module, versions[0])
    capabilities = _choose_capabilities(plan.get("compute_capabilities"), gpus)
    if model.is_file():
        mib = plan.get("workspace_mib")
        names = ("opt_batch", "builder_level", "aux_streams", "tiling_level")
        numbers: dict[str, Any] = {name: int(plan[name]) for name in names if plan.get(name)}
        request = BuildRequest(
            model,
            path,
            plan["precision"],
            plan["max_batch"],
            input=plan["input"],
            flavour=module,
            compute_capabilities=capabilities,
            workspace_bytes=int(mib) << 20 if mib else None,
            **numbers,
        )
        known = None if is_whole else plan.get("onnx_sha256")
        faults = look_up(request, flavour, lambda: list(gpus), known).faults
    else:
        gpu = flavour.choose_gpu(capabilities, lambda: list(gpus))
        key = read_sidecar(path).key
        key = dataclasses.replace(key, flavour=flavour.name, version=flavour.version, gpu=gpu)
        faults = judge_plan(path, key, measure_plan(path) if is_whole else recall_plan(path))
    if not faults and plan.get("plan_sha256") not in (None, read_sidecar(path).plan_sha256):
        return ["another plan lies there than was registered with CK"]
    return faults


def _choose_capabilities(asked: str | None, gpus: Sequence[Gpu]) -> tuple[str, ...] | None:
    """What a plan was asked to be built for; the GPUs that are there where that is none of them."""
    capabilities = tuple(asked.split(",")) if asked else None
    present = {gpu.compute_capability for gpu in gpus}
    return None if present and not present & set(capabilities or ()) else capabilities


def _judge(plan: Mapping[str, Any], found: Sequence[Found], gpus: Sequence[Gpu]) -> dict[str, Any]:
    try:
        return {"faults": judge(plan, found, gpus)}
    except UserError as error:  # another plan may be the one that is wanted
        return {"error": str(error)}


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def main() -> None:
    print(json.dumps(answer(json.load(sys.stdin))))


if __name__ == "__main__":
    run_main(main)
