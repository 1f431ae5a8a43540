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

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import ck_hooks

ck_hooks.import_helper("imagenet")
ck_hooks.import_helper("loadgen")

JOB = "job.json"
RECORD = "record.json"
FAILURE = "failure.json"
REPORT = "report.txt"

ANY_MODEL = {"model", "image-classification"}
DEFAULT_MODEL = {"onnx", "digits"}
RANDOM = "random"

# CK writes values into a bash script, in double quotes at most.
PLAIN = re.compile(r"[\w./:,=+@%~ -]*")

# What CK 2.6.4 takes as the name of an entry.
ENTRY_NAME = re.compile(r"[A-Za-z0-9_@.' -]+")


def ck_preprocess(i):
    from imagenet_helper.errors import UserError
    from loadgen_helper.settings import read_settings

    ck_hooks.make_writes_whole()
    ck_hooks.remove_half_made_experiments(i["ck_kernel"].work["dir_local_repo"])
    remove_stale_results()
    check_recording(sys.argv)
    environment = {name: str(i["env"][name]) for name in i["env"] if name.startswith("CK_")}
    check_plain(environment)
    try:
        settings = read_settings(environment)
    except UserError as error:
        ck_hooks.fail(error)

    ck, deps = i["ck_kernel"], i["deps"]
    resolve_model(ck, deps["weights"])
    recipe = dict(deps["weights"]["dict"]["customize"]["recipe"])
    sha256 = recipe.pop("sha256")
    if recipe["weights"] == RANDOM and settings.mode in ("AccuracyOnly", "SubmissionRun"):
        ck_hooks.fail(
            f"model {recipe['name']} has random weights, hence no accuracy: it is for "
            "--env.CK_LOADGEN_MODE=PerformanceOnly"
        )
    resolve_images(ck, deps["images"], recipe)
    engine_bat = resolve_engine(ck, deps["engine"])

    job = {
        "environment": environment,
        "model": ck_hooks.dep_path(deps["weights"]),
        "sha256": sha256,
        "recipe": recipe,
        "images": ck_hooks.dep_path(deps["images"]),
        "deps": [describe_dep(key, deps[key]) for key in sorted(deps)],
    }
    with open(JOB, "w") as file:
        json.dump(job, file, indent=2)
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
    ck_hooks.fail(
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
        ck_hooks.fail(
            "CK cannot carry these values, which have a character that a shell reads: "
            + ", ".join(bad)
        )
    for name in ("CK_REPOS", "CK_TOOLS"):
        path = os.environ.get(name, "")
        if " " in path:
            ck_hooks.fail(
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
            ck_hooks.fail(
                f"--record wants --record_uoa=NAME, of letters, digits and _ @ . ' -, not {name!r}"
            )


def resolve_model(ck, dep):
    tags = split_tags(dep["tags"])
    if not tags - ANY_MODEL:
        tags |= DEFAULT_MODEL
    refused = {RANDOM} - tags
    entry = find_registered(ck, "weights", dep, tags, refused)
    if entry is None:
        packages = find_packages(ck, tags)
        if len(packages) != 1:
            fail_unresolved(tags, packages)
        install(ck, packages[0], tags)
        entry = find_registered(ck, "weights", dep, tags, refused)
    take(dep, entry, tags)


def resolve_images(ck, dep, recipe):
    from imagenet_helper.recipe import ImageRecipe

    image = ImageRecipe.from_dict(recipe["image"])
    asked = split_tags(dep["tags"])
    tags = asked | {recipe["dataset"]} | set(image.tags())
    if not any(tag == "full" or tag.startswith("first.") for tag in asked):
        tags.add("full")
    entry = find_registered(ck, "images", dep, tags)
    if entry is None:
        (package,) = find_packages(ck, {"dataset", "preprocessed"})
        environment = {
            "DATASET": recipe["dataset"],
            "IMAGE_SIDE": image.side,
            "IMAGE_CROP": image.crop,
            "IMAGE_INTERPOLATION": image.interpolation,
            "IMAGE_CHANNELS": image.channels,
            "IMAGE_ASPECT": image.aspect,
        }
        install(ck, package, tags, environment)
        entry = find_registered(ck, "images", dep, tags)
    take(dep, entry, tags)


def resolve_engine(ck, dep):
    """Resolve the library of the engine that runs ONNX files. Returns the lines that set it up."""
    dep["tags"] = "lib,python-package,onnxruntime"
    dep.pop("skipped", None)
    resolved = ck.access(
        dict(action="resolve", module_uoa="env", deps={"engine": dep}, quiet="yes", out="con")
    )
    if resolved["return"]:
        ck_hooks.fail(resolved["error"])
    return resolved["bat"]


def split_tags(tags):
    return {tag for tag in tags.split(",") if tag}


def join_tags(tags):
    return ",".join(sorted(tags))


def find_registered(ck, key, dep, tags, refused=frozenset()):
    """The env entry with all the tags, or the one that --deps.KEY=UID names; None without one."""
    uid = dep.get("uoa")
    if uid:
        entry = ck.access(dict(action="load", module_uoa="env", data_uoa=uid))
        if entry["return"]:
            ck_hooks.fail(f"--deps.{key}={uid}: {entry['error']}; see `ck show env`")
        return dict(entry, meta=entry["dict"])
    found = ck.access(dict(action="search", module_uoa="env", tags=join_tags(tags), add_meta="yes"))
    # CK tags what it has not finished installing `tmp`.
    entries = [e for e in found["lst"] if not set(e["meta"]["tags"]) & (refused | {"tmp"})]
    if len(entries) > 1:
        fail_ambiguous(key, tags, entries)
    return entries[0] if entries else None


def find_packages(ck, tags):
    found = ck.access(
        dict(
            action="search_in_variations",
            module_uoa="misc",
            query_module_uoa="package",
            data_uoa="",
            tags=join_tags(tags),
            add_info="yes",
        )
    )
    return found["lst"]


def install(ck, package, tags, environment=None):
    """Install a package; tags that it does not know become tags of what it installs."""
    meta = package["meta"]
    known = set(meta["tags"]) | set(meta.get("variations", {}))
    installed = ck.access(
        dict(
            action="install",
            module_uoa="package",
            data_uoa=package["data_uid"],
            tags=join_tags(tags & known),
            extra_tags=join_tags(tags - known),
            env=environment or {},
            quiet="yes",
            out="con",
        )
    )
    if installed["return"]:
        ck_hooks.fail(f"{package['data_uoa']} was not installed: {installed['error']}")


def take(dep, entry, tags):
    dep["tags"] = join_tags(tags)
    dep["uoa"] = entry["data_uid"]
    dep["dict"] = entry["meta"]
    path = ck_hooks.dep_path(dep)
    if not os.path.exists(path):
        ck_hooks.fail(
            f"{path} is registered with CK and gone: `ck rm env:{dep['uoa']} --force` forgets it, "
            "and the next run installs it again"
        )


def describe_dep(key, dep):
    """A resolved dep, as the record has it."""
    meta = dep["dict"]
    version = meta["customize"].get("version", "")
    return {"key": key, "tags": meta["tags"], "uoa": dep["uoa"], "version": version}


def fail_ambiguous(key, tags, entries):
    common = set.intersection(*(set(entry["meta"]["tags"]) for entry in entries))
    lines = [f"more than one thing registered with CK has the tags {join_tags(tags)}:"]
    for entry in entries:
        own = join_tags(set(entry["meta"]["tags"]) - common)
        path = entry["meta"]["customize"]["full_path"]
        lines.append(f"  --deps.{key}={entry['data_uid']}   {own}   ({path})")
    lines.append(
        "Say which: add the first word of one of these lines, or "
        f"--dep_add_tags.{key}=TAG with a tag that only one has"
    )
    ck_hooks.fail("\n".join(lines))


def fail_unresolved(tags, packages):
    wanted = join_tags(tags)
    if packages:
        names = ", ".join(package["data_uoa"] for package in packages)
        ck_hooks.fail(
            f"more than one package has the tags {wanted}: {names}. "
            "Install one by `ck install package:NAME`, or add a tag that only one has"
        )
    if "tensorrt" in tags:
        ck_hooks.fail(
            f"no TensorRT plan with the tags {wanted} is installed, and no package makes one: this "
            "version runs ONNX models only.\nTake the same network's ONNX file: "
            "ck install package --tags=model,onnx,resnet,resnet50, then "
            "--dep_add_tags.weights=model,onnx,resnet50 in place of the tags with `tensorrt`"
        )
    ck_hooks.fail(
        f"nothing that is registered with CK, and no package, has the tags {wanted}. See "
        "`ck show env` and `ck search package --tags=model`; "
        "`ck detect soft:model.onnx --full_path=FILE` registers an ONNX file"
    )
