"""What happens around a run of image-classification-tensorrt-loadgen-py.

Before: check every setting, resolve the model and then the images that the model's recipe asks
for, and write both with the settings to `job.json`, which is all that the program reads.
After: hand the program's record to CK, or end the command with the program's exit code.

CK resolves the program's other deps itself. `weights` and `images` are resolved here because CK
would ask on the terminal which of several models to take, cannot fall back to a default where no
tags were added, and cannot derive a dep's tags from another dep's recipe.
"""

import json
import os
import re
import sys
from pathlib import Path

from ck_mlperf.catalog import kernel, plans, resolve
from ck_mlperf.catalog.resolve import split_tags, take

JOB = "job.json"
RECORD = "record.json"
FAILURE = "failure.json"
REPORT = "report.txt"

ANY_MODEL = {"model", "image-classification"}
DEFAULT_MODEL = {"onnx", "digits"}
RANDOM = "random"

# A tag of a model that is no property of the model: ONNX Runtime runs it on the GPU.
ON_GPU = "device.cuda"

# The libraries that an engine needs, by the program's deps.
LIBRARIES = {
    "onnx": {"engine": "onnxruntime"},
    "onnx-cuda": {"engine": "onnxruntime-gpu"},
    "tensorrt": {},
}
GPU_LIBRARIES = {"pycuda": "pycuda", "cuda-bindings": "cuda-bindings"}

# CK writes values into a bash script, in double quotes at most.
PLAIN = re.compile(r"[\w./:,=+@%~ -]*")

# What CK 2.6.4 takes as the name of an entry.
ENTRY_NAME = re.compile(r"[A-Za-z0-9_@.' -]+")


def ck_preprocess(i):
    from ck_mlperf.common.errors import UserError
    from ck_mlperf.loadgen.job import Job
    from ck_mlperf.loadgen.settings import read_settings

    kernel.make_writes_whole()
    kernel.remove_half_made_experiments(i["ck_kernel"].work["dir_local_repo"])
    remove_stale_results()
    check_recording(sys.argv)
    environment = {name: str(i["env"][name]) for name in i["env"] if name.startswith("CK_")}
    check_plain(environment)
    try:
        settings = read_settings(environment)
    except UserError as error:
        kernel.fail(error)

    ck, deps = i["ck_kernel"], i["deps"]
    python = kernel.dep_path(deps["python"])
    kind = resolve_model(ck, deps["weights"], python, settings.batch_size)
    # Asked for only where a GPU comes into it: it costs a process.
    if kind != "onnx" and not plans.survey_host(ck, python).has_driver:
        fail_without_gpu(kind, kernel.dep_path(deps["weights"]))
    recipe = dict(deps["weights"]["dict"]["customize"]["recipe"])
    sha256 = recipe.pop("sha256")
    if recipe["weights"] == RANDOM and settings.mode in ("AccuracyOnly", "SubmissionRun"):
        kernel.fail(
            f"model {recipe['name']} has random weights, hence no accuracy: it is for "
            "--env.CK_LOADGEN_MODE=PerformanceOnly"
        )
    resolve_images(ck, deps["images"], recipe)
    engine_bat = resolve_engine(ck, deps, kind)
    native = resolve_native(ck, deps["loadgen-native"])

    job = Job(
        settings=settings,
        engine=kind,
        model=Path(kernel.dep_path(deps["weights"])),
        sha256=sha256,
        recipe=recipe,
        images=Path(kernel.dep_path(deps["images"])),
        loadgen_native=native and Path(native),
        deps=[describe_dep(key, deps[key]) for key in sorted(deps) if deps[key].get("dict")],
    )
    with open(JOB, "w") as file:
        file.write(job.to_json())
    return {"return": 0, "bat": engine_bat}


def ck_postprocess(i):
    if os.path.exists(RECORD):
        with open(RECORD) as file:
            record = json.load(file)
        record["execution_time"] = record["timing"]["wall_s"]
        return {"return": 0, "characteristics": record}
    remove_stale_results(but=FAILURE)
    if os.path.exists(FAILURE):  # the program has said on stderr what went wrong
        with open(FAILURE) as file:
            raise SystemExit(json.load(file)["exit_code"])
    kernel.fail(
        "the program ended without a result and without a word: it was killed, perhaps for memory",
        code=1,
    )


def remove_stale_results(but=None):
    for name in os.listdir("."):
        is_result = name in (JOB, RECORD, FAILURE, REPORT) or name.startswith("mlperf_log_")
        if is_result and name != but:
            os.remove(name)


def check_plain(environment):
    bad = [f"{name}={value}" for name, value in environment.items() if not PLAIN.fullmatch(value)]
    if bad:
        kernel.fail(
            "CK cannot carry these values, which have a character that a shell reads: "
            + ", ".join(bad)
        )
    for name in ("CK_REPOS", "CK_TOOLS"):
        path = os.environ.get(name, "")
        if " " in path:
            kernel.fail(
                f"{name}='{path}' has a space, with which CK's scripts silently do nothing; "
                "move it to a path without one"
            )


def check_recording(arguments):
    """Refuse a recording under a name that CK refuses, which it does after the run."""
    if os.path.basename(arguments[0]) != "ck" or "benchmark" not in arguments:
        return
    flags = dict(flag[2:].partition("=")[::2] for flag in arguments if flag.startswith("--"))
    if flags.get("record", "no") in ("", "yes"):
        name = flags.get("record_uoa", "").rpartition(":")[2]
        if not ENTRY_NAME.fullmatch(name):
            kernel.fail(
                f"--record wants --record_uoa=NAME, of letters, digits and _ @ . ' -, not {name!r}"
            )


def resolve_model(ck, dep, python, batch_size):
    """Fill in the dep on the model. Returns the kind of engine that runs it, by its tags."""
    tags = split_tags(dep["tags"])
    on_gpu = ON_GPU in tags
    tags.discard(ON_GPU)
    if dep.get("uoa"):
        entry = resolve.load_pinned(ck, "weights", dep["uoa"])
        if "tensorrt" in entry["meta"]["tags"]:
            check_pinned_plan(ck, entry, python)
            tags.add("tensorrt")
        take(dep, entry, tags)
    elif "tensorrt" in tags:
        request = plans.read_request(tags, batch_size or plans.DEFAULT_MAX_BATCH)
        host = plans.survey_for(ck, request, python)
        flavour = plans.choose_flavour(request.flavour, host.installed, host.gpus)
        take(dep, plans.obtain_plan(ck, request, flavour, host), tags)
    elif plans.CONVERTED in tags:
        request = plans.read_request(tags)
        source = plans.resolve_source(ck, {"tags": ""}, request.source, key="weights")
        take(dep, plans.obtain_conversion(ck, request, source), tags)
    else:
        if not tags - ANY_MODEL:
            tags |= DEFAULT_MODEL
        plans.resolve_source(ck, dep, tags, key="weights")
    if "tensorrt" in tags:
        return "tensorrt"
    return "onnx-cuda" if on_gpu else "onnx"


def fail_without_gpu(kind, path):
    needs = "a TensorRT plan" if kind == "tensorrt" else "ONNX Runtime with the tag device.cuda"
    made = f"{path} is there to be run where one is. Here, " if kind == "tensorrt" else "Here, "
    kernel.fail(
        f"{needs} needs an NVIDIA GPU and its driver, and this machine has none (no nvidia-smi, no "
        f"libcuda.so.1). {made}ONNX Runtime runs the ONNX file on the CPU: "
        "--dep_add_tags.weights=model,onnx,NAME"
    )


def check_pinned_plan(ck, entry, python):
    """Refuse a plan that --deps.weights=UID names and that would be built otherwise now."""
    request = plans.read_request(resolve.entry_tags(entry))
    question = plans.describe_plan(entry, request)
    host = plans.survey_host(ck, python, [question])
    faults = plans.judge_entry(ck, entry, request, host)
    if faults:
        kernel.fail(
            f"--deps.weights={entry['data_uid']}: {resolve.entry_path(entry)} would be built "
            f"otherwise now: {'; '.join(faults)}. Give its tags in place of its UID, and it is "
            "built again"
        )


def resolve_images(ck, dep, recipe):
    from ck_mlperf.images.recipe import ImageRecipe

    image = ImageRecipe.from_dict(recipe["image"])
    asked = split_tags(dep["tags"])
    tags = asked | {recipe["dataset"]} | set(image.tags())
    if not any(tag == "full" or tag.startswith("first.") for tag in asked):
        tags.add("full")
    refused = {plans.CALIBRATION}  # its images have no labels
    entry = resolve.find_registered(ck, "images", dep, tags, refused)
    if entry is None:
        entry = plans.preprocess(ck, tags - refused, recipe)
    if refused & resolve.entry_tags(entry):
        kernel.fail("the images are calibration images: they have no labels to compare with")
    take(dep, entry, tags)


def resolve_engine(ck, deps, kind):
    """Resolve what the engine needs. Returns the lines that set it up."""
    libraries = dict(LIBRARIES[kind])
    if kind == "tensorrt":
        libraries["engine"] = min(
            tag for tag in deps["weights"]["dict"]["tags"] if plans.FLAVOUR.fullmatch(tag)
        )
    if kind != "onnx":
        libraries |= GPU_LIBRARIES
    return "".join(
        resolve.resolve_library(ck, deps[key], f"lib,python-package,{name}")
        for key, name in libraries.items()
    )


def resolve_native(ck, dep):
    """Fill in the dep on LoadGen's C++ interface where it was installed. Its library, or None."""
    tags = split_tags(dep["tags"])
    entry = resolve.find_registered(ck, "loadgen-native", dep, tags)
    if entry is None:
        return None
    take(dep, entry, tags)
    return kernel.dep_path(dep)


def describe_dep(key, dep):
    """A resolved dep, as the record has it."""
    meta = dep["dict"]
    version = meta["customize"].get("version", "")
    return {"key": key, "tags": meta["tags"], "uoa": dep["uoa"], "version": version}
