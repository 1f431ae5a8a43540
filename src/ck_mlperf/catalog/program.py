"""What happens around a run of image-classification-tensorrt-loadgen-py.

Before: check every setting, resolve the model and then the images that the model's recipe asks
for, and write both with the settings to `job.json`, which is all that the program reads.
After: hand the program's record to CK (ck_mlperf.catalog.run_folder).

CK skips the program's deps, and they are resolved here. CK would look them up before it calls the
first hook, so before this process holds the home (ck_mlperf.catalog.home). Of `weights` and
`images` it would also ask on the terminal which of several models to take, cannot fall back to a
default where no tags were added, and cannot derive a dep's tags from another dep's recipe.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ck_mlperf.catalog.conversion import Conversion, check_source
from ck_mlperf.catalog.host import has_driver
from ck_mlperf.catalog.images import resolve_images
from ck_mlperf.catalog.kernel import Catalog, Dep, Entry, read_command_line
from ck_mlperf.catalog.options import (
    RUN,
    Known,
    find_build_variables,
    find_unknown_options,
    read_build_variables,
)
from ck_mlperf.catalog.plan import PlanChain
from ck_mlperf.catalog.request import (
    CONVERTED,
    DEFAULT_MAX_BATCH,
    DEFAULT_SOURCE,
    ONNX,
    RANDOM,
    find_flavour_tag,
    read_request,
)
from ck_mlperf.catalog.source import obtain_source
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import write_file
from ck_mlperf.common.processes import read_start
from ck_mlperf.common.shell import find_unsafe
from ck_mlperf.loadgen.engines.registry import (
    GPU,
    PLAN,
    PLANS_OWN,
    EngineEntry,
    choose_engine,
    list_tags,
)
from ck_mlperf.loadgen.job import JOB, NOT_RECORDED, Job
from ck_mlperf.loadgen.run_folder import RUN_ID
from ck_mlperf.loadgen.settings import RunSettings, read_settings

_BASE = ("python", "lib-python-numpy", "lib-python-loadgen", "ck-mlperf")
_ANY_MODEL = {"model", "image-classification"}
_SECRET = re.compile(r"KEY|PASS|SECRET|TOKEN|CREDENTIAL|AUTH")


def prepare_run(
    catalog: Catalog,
    deps: Mapping[str, Dep],
    environment: Mapping[str, str],
    arguments: Sequence[str],
) -> str:
    """Fill in the deps that CK has skipped, and write the job.

    environment: the run's variables, as --env gives them. arguments: the command line. Returns the
    lines of bash that set the engine up. Raises UserError.
    """
    check_plain(environment)
    known = Known(catalog.read_sources(RUN))
    problems = find_unknown_options(read_command_line(arguments), deps, known)
    problems += find_build_variables(environment, read_build_variables(catalog))
    # Those that CK sets itself, such as CK_CPU_FREQUENCY.
    own = {name for name in environment if name.startswith("CK_") and known.has_variable(name)}
    environment = {name: environment[name] for name in environment if name not in own}
    settings = read_settings(environment, problems)
    engine = resolve_model(catalog, deps, settings)
    model = deps["weights"].entry
    assert model is not None
    # Asked for only where a GPU comes into it: that takes time.
    if engine.runs_on == GPU and not has_driver():
        raise UserError(describe_missing_gpu(engine, model))
    recipe = dict(model.recipe)
    sha256, external_files = recipe.pop("sha256"), recipe.pop("external_files", [])
    if recipe["weights"] == RANDOM and settings.mode in ("AccuracyOnly", "SubmissionRun"):
        raise UserError(
            f"model {recipe['name']} has random weights and so no accuracy: run it with "
            "--env.CK_LOADGEN_MODE=PerformanceOnly"
        )
    if engine.model != PLAN:
        check_source(model)
    resolve_images(catalog, deps["images"], deps["dataset"], recipe)
    lines = resolve_libraries(catalog, deps, engine, model)
    native = resolve_native(catalog, deps["loadgen-native"])  # before the deps are listed
    # The program's process inherits it.
    os.environ[RUN_ID] = run_id = secrets.token_hex(8)
    job = Job(
        settings=settings,
        engine=engine.kind,
        model=Path(model.path),
        sha256=sha256,
        external_files=external_files,
        recipe=recipe,
        images=Path(deps["images"].path),
        loadgen_native=native,
        passed=select_passed(environment),
        deps=[describe_dep(key, dep.entry) for key, dep in sorted(deps.items()) if dep.entry],
        run_id=run_id,
        ck={"pid": os.getpid(), "started": read_start(os.getpid())},
    )
    write_file(Path(JOB), job.to_json())
    return lines


def resolve_base(catalog: Catalog, deps: Mapping[str, Dep]) -> str:
    """Resolve what every run needs, in place of CK. Returns the lines of bash that set it up.

    Raises UserError where several interpreters are registered and none was chosen.
    """
    python = deps["python"]
    entry = catalog.find_one("python", python.tags, pinned=python.uid)
    if entry is not None:
        python.take(entry, python.tags)
    return catalog.resolve_all({key: deps[key] for key in _BASE})


def select_passed(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are passed on to the program and are none of its own, for the record."""
    return {
        name: NOT_RECORDED if _SECRET.search(name.upper()) else environment[name]
        for name in sorted(environment)
        if not name.startswith("CK_")
    }


def check_plain(environment: Mapping[str, str]) -> None:
    """Raise UserError for variables that a shell would interpret when CK hands them to it."""
    unsafe = find_unsafe(environment)
    if unsafe:
        raise UserError(
            "CK cannot pass these variables on, which have a character that a shell interprets: "
            + ", ".join(unsafe)
        )
    for name in ("CK_REPOS", "CK_TOOLS"):
        path = os.environ.get(name, "")
        if " " in path:
            raise UserError(
                f"{name}='{path}' has a space, and CK's scripts then silently do nothing; move it "
                "to a path without one"
            )


def resolve_model(catalog: Catalog, deps: Mapping[str, Dep], settings: RunSettings) -> EngineEntry:
    """Fill in the dep on the model. Returns the engine that runs it, by its tags."""
    dep, python = deps["weights"], deps["python"].path
    asked = dep.tags
    tags = asked - list_tags()
    # Also of a file that is run as it is: tags that contradict each other are refused.
    request = read_request(tags, settings.batch_size or DEFAULT_MAX_BATCH)
    if dep.uid:
        entry = catalog.load_pinned("weights", dep.uid)
        if "tensorrt" in entry.tags:
            check_pinned_plan(catalog, entry, python)
            tags.add("tensorrt")
    elif "tensorrt" in tags:
        entry = PlanChain(catalog, request, python).obtain()
    elif CONVERTED in tags:
        source = obtain_source(catalog, "weights", request.source)
        entry = Conversion(catalog, request, source).obtain()
    else:
        if not tags - _ANY_MODEL:
            tags.add(DEFAULT_SOURCE)
        tags |= ONNX
        entry = obtain_source(catalog, "weights", tags)
    dep.take(entry, tags)
    return choose_engine("tensorrt" if "tensorrt" in tags else "onnx", asked)


def describe_missing_gpu(engine: EngineEntry, model: Entry) -> str:
    """What to do where there is no GPU to run the engine on."""
    needs, made = f"ONNX Runtime with the tag {engine.tag}", ""
    if engine.model == PLAN:
        needs, made = "a TensorRT plan", f"{model.path} is ready for a machine that has one. "
    return (
        f"{needs} needs an NVIDIA GPU and its driver, and this machine has none (no nvidia-smi, no "
        f"libcuda.so.1). {made}Here, ONNX Runtime runs the ONNX file on the CPU: "
        "--dep_add_tags.weights=model,onnx,NAME"
    )


def check_pinned_plan(catalog: Catalog, entry: Entry, python: str) -> None:
    """Refuse a plan that --deps.weights=UID names and that would be built otherwise now."""
    faults = PlanChain(catalog, read_request(entry.tags), python).judge(entry)
    if faults:
        raise UserError(
            f"--deps.weights={entry.uid}: {entry.path} would be built otherwise now: "
            f"{'; '.join(faults)}. Give its tags in place of its UID, and it is built again"
        )


def resolve_libraries(
    catalog: Catalog, deps: Mapping[str, Dep], engine: EngineEntry, model: Entry
) -> str:
    """Resolve what the engine needs. Returns the lines of bash that set it up."""
    return "".join(
        catalog.resolve_library(
            deps[key], find_flavour_tag(model.tags) if library == PLANS_OWN else library
        )
        for key, library in engine.libraries.items()
    )


def resolve_native(catalog: Catalog, dep: Dep) -> Path | None:
    """Fill in the dep on LoadGen's C++ interface where it was installed. Its library, or None."""
    tags = dep.tags
    entry = catalog.find_one("loadgen-native", tags, pinned=dep.uid)
    if entry is None:
        return None
    dep.take(entry, tags)
    return Path(entry.path)


def describe_dep(key: str, entry: Entry) -> dict[str, Any]:
    """A resolved dep, as the record has it."""
    version = entry.customize.get("version", "")
    return {"key": key, "tags": entry.meta["tags"], "uoa": entry.uid, "version": version}
