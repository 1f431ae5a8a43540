"""Whether a plan that CK has registered is what the same request would build now."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ck_mlperf.catalog.host import Host
from ck_mlperf.catalog.kernel import Entry
from ck_mlperf.catalog.request import Request, find_flavour_tag
from ck_mlperf.tensorrt.names import read_flavour_tag

# What a user may set for a build with --env.NAME=...: the name, and the build's own.
_NUMBERS = {
    "TENSORRT_AUX_STREAMS": "aux_streams",
    "TENSORRT_BUILDER_LEVEL": "builder_level",
    "TENSORRT_OPT_BATCH_SIZE": "opt_batch",
    "TENSORRT_TILING_LEVEL": "tiling_level",
}


def judge_plan_file(
    entry: Entry, request: Request, host: Host, thorough: bool = False
) -> list[str]:
    """Why a plan is not what the request would build on the host, one reason each; [] where it is.

    thorough: hash also files that have not changed since the plan was built. Where the converted
    file is not known any more, what the plan was built for is compared, and the rest is taken as it
    is. Raises UserError where the request makes no sense on this host.
    """
    from ck_mlperf.tensorrt.api import make_flavour
    from ck_mlperf.tensorrt.lookup import look_up
    from ck_mlperf.tensorrt.plan_file import judge_plan, measure_plan, read_sidecar, recall_plan
    from ck_mlperf.tensorrt.request import BuildRequest

    tag = find_flavour_tag(entry.tags)
    module, major = read_flavour_tag(tag)
    found = host.find(tag)
    if found is None:
        what = module if major is None else f"{module} {major}"
        return [f"{what} is not installed any more, with which it was built"]
    converted = entry.meta["deps"].get("converted", {}).get("dict")
    recipe = converted["customize"].get("recipe", {}) if converted else {}
    made, wanted = (recipe.get("conversion") or {}).get("input"), request.for_conversion().input
    if made not in (None, wanted):  # an older commit's, which had the preparation in the graph
        return [f"the converted file's input is {wanted}, the plan was built from one with {made}"]
    flavour = make_flavour(found.module, found.version)
    options = entry.customize.get("install_env", {})
    capabilities = _choose_capabilities(options.get("TENSORRT_COMPUTE_CAPABILITIES"), host)
    path, gpus = Path(entry.path), list(host.gpus)
    model = Path(converted["customize"]["full_path"]) if converted else None
    if model is not None and model.is_file():
        mib = options.get("TENSORRT_WORKSPACE_MIB")
        numbers: dict[str, Any] = {
            name: int(options[variable])
            for variable, name in _NUMBERS.items()
            if options.get(variable)
        }
        build = BuildRequest(
            model,
            path,
            request.precision,
            request.max_batch,
            input=request.input,
            flavour=module,
            compute_capabilities=capabilities,
            workspace_bytes=int(mib) << 20 if mib else None,
            **numbers,
        )
        known = None if thorough else recipe.get("sha256")
        faults = look_up(build, flavour, lambda: gpus, known).faults
    else:
        gpu = flavour.choose_gpu(capabilities, lambda: gpus)
        key = read_sidecar(path).key
        key = dataclasses.replace(key, flavour=flavour.name, version=flavour.version, gpu=gpu)
        faults = judge_plan(path, key, measure_plan(path) if thorough else recall_plan(path))
    if not faults and entry.recipe["sha256"] != read_sidecar(path).plan_sha256:
        return ["another plan is there than was registered with CK"]
    return faults


def _choose_capabilities(asked: str | None, host: Host) -> tuple[str, ...] | None:
    """What a plan was asked to be built for; the GPUs that are there where that is none of them."""
    capabilities = tuple(asked.split(",")) if asked else None
    present = {gpu.compute_capability for gpu in host.gpus}
    return None if present and not present & set(capabilities or ()) else capabilities
