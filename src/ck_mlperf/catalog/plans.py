"""From CK tags to a TensorRT plan: source ONNX file, converted ONNX file, flavour, plan.

A plan is looked up by its tags and taken only if its key (the sidecar beside it) agrees with what
the same request would build now. `find_plan` looks; `obtain_plan` and `obtain_conversion` install
what is not there. The run hook, the packages and `ck why loadgen` all go through here.
"""

import dataclasses
import hashlib
import json
import os
import re
import subprocess

from ck_mlperf.catalog import kernel, resolve
from ck_mlperf.catalog.resolve import join_tags, split_tags

CONVERTED = "converted-from-onnx"
RANDOM = "random"
CALIBRATION = "calibration"
DEFAULT_SOURCE = "digits"

ONNX = {"model", "onnx", "image-classification"}
PLAN = {"model", "tensorrt", "image-classification"}

PLAN_PACKAGE = "model-tensorrt-convert-from-onnx"
CONVERSION_PACKAGE = "model-onnx-convert"

# What a tag chooses, the default first. A file of ONNX has no tf32: that is a way to compute.
PRECISIONS = ("fp32", "tf32", "fp16", "int8")
# A plan's samples: images that the GPU prepares, or what the plan itself takes. A converted file's
# input: images, or one of the other two, by which plans are made.
PLAN_INPUTS = ("uint8", "int8", "fp16", "fp32")
FILE_INPUTS = ("uint8", "fp32", "native")
OUTPUTS = ("class", "scores")
DEFAULT_MAX_BATCH = 1

RTX = "tensorrt-rtx"
FLAVOUR = re.compile(r"tensorrt-(rtx|\d+)")

# What a user may set for a build with --env.NAME=...: the name, and the build's own.
BUILD_OPTIONS = {
    "TENSORRT_AUX_STREAMS": "aux_streams",
    "TENSORRT_BUILDER_LEVEL": "builder_level",
    "TENSORRT_COMPUTE_CAPABILITIES": "compute_capabilities",
    "TENSORRT_OPT_BATCH_SIZE": "opt_batch",
    "TENSORRT_TILING_LEVEL": "tiling_level",
    "TENSORRT_WORKSPACE_MIB": "workspace_mib",
}

# Tags that CK puts on every env entry, and those of the entry's version.
CK_TAG = re.compile(r"(host|target)-os-.*|\d+bits|v\d+(\.\w+)*|tmp")


@dataclasses.dataclass(frozen=True)
class Request:
    """What the tags of a converted ONNX file or of a plan ask for.

    source: the tags of the ONNX file to convert, '' for the one that a dep names. flavour:
    'tensorrt-rtx', 'tensorrt-8' and so on, None for the one that is installed.
    """

    source: frozenset
    precision: str
    input: str
    output: str
    max_batch: int
    flavour: str | None

    def for_conversion(self):
        """The request for the converted file that a plan is made from."""
        return dataclasses.replace(self, input="fp32" if self.input == "fp32" else "native")

    def conversion_tags(self):
        precision = "fp32" if self.precision == "tf32" else self.precision
        return ONNX | {CONVERTED, precision} | self._option_tags() | self.source

    def plan_tags(self, flavour):
        own = {CONVERTED, self.precision, f"maxbatch.{self.max_batch}", flavour}
        return PLAN | own | self._option_tags() | self.source

    def _option_tags(self):
        return {f"input.{self.input}", f"output.{self.output}"}


@dataclasses.dataclass(frozen=True)
class Host:
    """The interpreter that converts and runs; what TensorRT it finds; the GPUs.

    installed: {flavour's tag: the module's name}. gpus: {"name", "compute_capability"} each, as the
    driver says. has_driver: whether there is a driver for a GPU, also where that is missing.
    judged: what was found out about plans, {question about the plan as JSON: answer}.
    """

    python: str
    installed: dict
    gpus: list
    has_driver: bool
    judged: dict = dataclasses.field(default_factory=dict)


# What is known of the host in this `ck` command, by interpreter and folders with a TensorRT: the
# GPUs are asked for once.
SURVEYS = {}


def read_request(tags, max_batch=DEFAULT_MAX_BATCH, default_source=DEFAULT_SOURCE):
    """Take tags apart. What is no option is the source's. max_batch: where no tag says it."""
    tags = strip_ck_tags(tags)
    precision = choose(tags, "precision", PRECISIONS)
    input_type = choose_input(tags, precision)
    output = choose(tags, "output", [f"output.{name}" for name in OUTPUTS])
    flavours = {tag for tag in tags if FLAVOUR.fullmatch(tag)}
    sizes = {tag for tag in tags if tag.startswith("maxbatch.")}
    for several in (flavours, sizes):
        if len(several) > 1:
            kernel.fail(f"{join_tags(several)}: want one of these tags, not several")
    for size in sizes:
        max_batch = read_max_batch(size.removeprefix("maxbatch."))
    source = tags - ONNX - PLAN - {precision, input_type, output, CONVERTED} - flavours - sizes
    if not source and default_source:
        source = {default_source}
    return Request(
        source=frozenset(source),
        precision=precision,
        input=input_type.removeprefix("input."),
        output=output.removeprefix("output."),
        max_batch=max_batch,
        flavour=min(flavours, default=None),
    )


def choose_input(tags, precision):
    """The tag of the input, of a plan or of a converted file, by the other tags."""
    is_file = "onnx" in tags and "tensorrt" not in tags
    what, names = ("converted file", FILE_INPUTS) if is_file else ("plan", PLAN_INPUTS)
    choices = [f"input.{name}" for name in names]
    unfit = {tag for tag in tags if tag.startswith("input.")} - set(choices)
    if unfit:
        kernel.fail(f"{join_tags(unfit)}: the input of a {what} is {' or '.join(choices)}")
    chosen = choose(tags, "input", choices)
    if chosen in ("input.int8", "input.fp16") and chosen != f"input.{precision}":
        kernel.fail(
            f"{chosen} is the input of a plan in {chosen.removeprefix('input.')}, and {precision} "
            "was asked for. Leave it out, and the GPU prepares the images"
        )
    return chosen


def read_max_batch(text):
    if not (text.isascii() and text.isdigit() and int(text)):
        kernel.fail(f"maxbatch.{text}: want the most images in a batch, such as maxbatch.32")
    return int(text)


def strip_ck_tags(tags):
    return {tag for tag in tags if not CK_TAG.fullmatch(tag)}


def source_tags(entry):
    """The tags by which a model is known, of the env entry of its ONNX file."""
    return strip_ck_tags(resolve.entry_tags(entry)) - ONNX


def choose(tags, what, choices):
    """The one of the choices that is among the tags; the first where none is."""
    chosen = [choice for choice in choices if choice in tags]
    if len(chosen) > 1:
        kernel.fail(f"{' and '.join(chosen)}: want one {what}, not several")
    return chosen[0] if chosen else choices[0]


# The host: flavours and GPUs


def ask_helper(python, question):
    """What ck_mlperf.tensorrt.survey answers, run by `python`.

    The command ends where the helper says that it cannot be done.
    """
    path = [str(kernel.SOURCE), os.environ.get("PYTHONPATH", "")]
    process = subprocess.run(
        [python, "-m", "ck_mlperf.tensorrt.survey"],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, path))),
        input=json.dumps(question),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if process.returncode:  # it has said on stderr what is wrong
        raise SystemExit(2)
    return json.loads(process.stdout)


def survey_host(ck, python, plans=()):
    """What there is to run plans with. A process, unless this `ck` command has asked before.

    plans: questions about plans (`describe_plan`), which the same process answers.
    """
    sites = list_sites(ck)
    known = SURVEYS.get((python, *sites))
    questions = {json.dumps(plan): plan for plan in plans}
    if known:
        questions = {text: questions[text] for text in questions if text not in known.judged}
        if not questions:
            return known
    gpus = next((host.gpus for host in SURVEYS.values()), None)
    question = {"sites": sites, "gpus": gpus, "plans": list(questions.values())}
    found = ask_helper(python, question)
    installed = {name_flavour(module, version): module for _, module, version in found["found"]}
    judged = dict(zip(questions, found["plans"], strict=True))
    if known:
        judged = known.judged | judged
    host = Host(python, installed, found["gpus"], found["has_driver"], judged)
    SURVEYS[(python, *sites)] = host
    return host


def list_sites(ck):
    """Folders into which CK has installed a TensorRT."""
    found = [
        entry
        for tag in ("tensorrt", RTX)
        for entry in resolve.find_entries(ck, {"lib", "python-package", tag})
    ]
    return sorted({resolve.entry_path(entry) for entry in found})


def name_flavour(module, version):
    """The tag of a flavour: 'tensorrt-rtx', or 'tensorrt-10' by the version."""
    return RTX if module == "tensorrt_rtx" else f"tensorrt-{version.partition('.')[0]}"


def choose_flavour(asked, installed, gpus):
    """The flavour's tag: what was asked for, or else what is installed and runs on the GPU.

    'tensorrt' where none is installed and the GPU needs TensorRT itself, of whatever version.
    Ends the command rather than choose among several, or take one that cannot run here.
    """
    from ck_mlperf.tensorrt.flavour import RTX_CAPABILITIES

    if asked:
        return asked
    takes_rtx = not gpus or any(gpu["compute_capability"] in RTX_CAPABILITIES for gpu in gpus)
    names = ", ".join(f"{gpu['name']} ({gpu['compute_capability']})" for gpu in gpus)
    able = set(installed) if takes_rtx else set(installed) - {RTX}
    if len(able) > 1:
        kernel.fail(
            f"several versions of TensorRT are installed, {' and '.join(sorted(able))}: "
            "add one of these tags to say which"
        )
    if not able and RTX in installed:
        kernel.fail(
            f"TensorRT for RTX is installed and does not run on {names}. Install TensorRT itself, "
            "`ck install package --tags=lib,python-package,tensorrt` (it fetches its libraries "
            "from NVIDIA's package index); run the ONNX model with the tag device.cuda; or add the "
            "tag tensorrt-rtx to make a plan for another machine, with "
            "--env.TENSORRT_COMPUTE_CAPABILITIES=8.6,8.9"
        )
    if able:
        return min(able)
    return RTX if takes_rtx else "tensorrt"


# The source


def resolve_source(ck, dep, tags, key="onnx"):
    """Fill in a dep on an ONNX file as it was exported: registered, or else installed."""
    tags = tags | ONNX
    refused = {RANDOM, CONVERTED} - tags
    entry = resolve.find_registered(ck, key, dep, tags, refused)
    if entry is None:
        packages = find_source_packages(ck, tags)
        if len(packages) != 1:
            fail_unresolved(tags, packages)
        resolve.install(ck, packages[0], tags)
        entry = resolve.find_registered(ck, key, dep, tags, refused)
    resolve.take(dep, entry, tags)
    return entry


def find_source_packages(ck, tags):
    found = resolve.find_packages(ck, tags)
    return [p for p in found if CONVERTED in tags or CONVERTED not in p["meta"]["tags"]]


def list_sources(ck, tags):
    """The registered ONNX files with the tags that may be converted."""
    return resolve.find_entries(ck, tags | ONNX, {RANDOM, CONVERTED} - tags)


def check_sources(ck, request, flavour):
    """The one registered ONNX file to make a plan from, None without. Ends where there are more."""
    sources = list_sources(ck, request.source)
    if len(sources) > 1:
        resolve.fail_ambiguous(
            "onnx",
            ONNX | request.source,
            sources,
            "Add a tag that only one has; or make the plan of one, with the first word of its "
            f"line, and it is found from then on: {describe_install(ck, request, flavour)} "
            "--deps.onnx=UID",
        )
    return sources[0] if sources else None


def fail_unresolved(tags, packages):
    wanted = join_tags(tags)
    if packages:
        names = ", ".join(package["data_uoa"] for package in packages)
        kernel.fail(
            f"more than one package has the tags {wanted}: {names}. "
            "Install one by `ck install package:NAME`, or add a tag that only one has"
        )
    kernel.fail(
        f"nothing that is registered with CK, and no package, has the tags {wanted}. See "
        "`ck show env` and `ck search package --tags=model`; "
        "`ck detect soft:model.onnx --full_path=FILE` registers an ONNX file"
    )


# Calibration


def read_manifest(entry):
    path = os.path.join(resolve.entry_path(entry), "manifest.json")
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def calibration_tags(recipe):
    """The tags of the original calibration images, and of the array that is made of them."""
    from ck_mlperf.images.recipe import ImageRecipe

    image = ImageRecipe.from_dict(recipe["image"])
    common = {"dataset", CALIBRATION, recipe["dataset"]}
    return common | {"original"}, common | {"preprocessed", *image.tags()}


def look_for_calibration(ck, recipe):
    """The array of the registered calibration images as it is now, None where there is none."""
    original_tags, tags = calibration_tags(recipe)
    originals = {entry["data_uid"] for entry in resolve.find_entries(ck, original_tags)}
    for entry in resolve.find_entries(ck, tags):
        if entry["meta"]["setup"].get("deps_dataset") in originals and read_manifest(entry):
            return entry
    return None


def resolve_calibration(ck, dep, recipe):
    """Fill in a dep on calibration images, preprocessed for a model's recipe.

    Handwritten digits are installed, from the part that the network was trained on; ImageNet's are
    the user's to name: never validation images that nobody asked to calibrate with.
    """
    original_tags, tags = calibration_tags(recipe)
    tags |= split_tags(dep["tags"])
    if dep.get("uoa"):
        entry = resolve.load_pinned(ck, CALIBRATION, dep["uoa"])
    else:
        original = find_original(ck, original_tags, recipe["dataset"])
        entry = next(
            (
                entry
                for entry in resolve.find_entries(ck, tags)
                if entry["meta"]["setup"].get("deps_dataset") == original["data_uid"]
            ),
            None,
        )
        if entry is None:
            entry = preprocess(ck, tags, recipe, {"dataset": original["data_uid"]})
    resolve.take(dep, entry, tags)
    return entry


def find_original(ck, tags, dataset):
    originals = resolve.find_entries(ck, tags)
    if len(originals) > 1:
        paths = "\n".join(
            f"  ck rm env:{entry['data_uid']} --force   ({resolve.entry_path(entry)})"
            for entry in originals
        )
        kernel.fail(
            f"more than one set of calibration images is registered:\n{paths}\n"
            "Let CK forget the others by these commands; the images stay where they are"
        )
    if originals:
        return originals[0]
    if dataset != "digits":
        kernel.fail(
            "int8 needs images to calibrate with, and none are registered. Register a folder of "
            "images that are in no accuracy test: "
            f"`ck detect soft:dataset.{dataset}.calibration --full_path=FOLDER`. "
            "For MLPerf's list, with all 50,000 validation images registered: "
            "`ck install package:dataset-imagenet-calibration`"
        )
    return resolve.install(ck, resolve.load_package(ck, "dataset-digits-calibration"), tags)


def preprocess(ck, tags, recipe, pinned=None):
    """Install the preprocessed images with the tags, for a model's recipe."""
    image = recipe["image"]
    environment = {
        "DATASET": recipe["dataset"],
        "IMAGE_SIDE": image["side"],
        "IMAGE_CROP": image["crop"],
        "IMAGE_INTERPOLATION": image["interpolation"],
        "IMAGE_CHANNELS": image["channels"],
        "IMAGE_ASPECT": image["aspect"],
    }
    (package,) = resolve.find_packages(ck, {"dataset", "preprocessed"})
    return resolve.install(ck, package, tags, environment, pinned)


# The converted ONNX file


def judge_conversion(ck, conversion, source):
    """Why a converted file is not what would be converted now; [] where it is.

    conversion: what its recipe says of it. source: the env entry of the ONNX file.
    """
    recipe = source["meta"]["customize"]["recipe"]
    faults = compare("source_sha256", recipe["sha256"], conversion.get("source_sha256"))
    if conversion.get("precision") == "int8":
        calibration = look_for_calibration(ck, recipe)
        used = conversion.get("calibration") or {}
        if calibration:
            digest = read_manifest(calibration)["images_sha256"]
            faults += compare("calibration.images_sha256", digest, used.get("images_sha256"))
        elif resolve.find_entries(ck, calibration_tags(recipe)[0]):
            faults.append("the calibration images that are registered now are others")
    return faults


def compare(name, wanted, found):
    if wanted == found:
        return []
    return [f"{name} is {shorten(wanted)}, it was made with {shorten(found)}"]


def shorten(value):
    """A value as a person reads it; of a hash, what tells it apart."""
    text = str(value)
    return text if len(text) < 64 else f"{text[:16]}..."


def find_conversion(ck, request, source, count=""):
    """(env entry of the source's converted file or None, why those that are there are not it)

    count: of calibration images, where it was asked for.
    """
    faults = []
    for entry in resolve.find_entries(ck, request.conversion_tags()):
        if not os.path.exists(resolve.entry_path(entry)):
            continue
        conversion = entry["meta"]["customize"]["recipe"].get("conversion") or {}
        reasons = judge_conversion(ck, conversion, source)
        if count and request.precision == "int8":
            used = conversion.get("calibration") or {}
            reasons += compare("calibration.count", str(count), str(used.get("count")))
        if not reasons:
            return entry, []
        if entry["meta"]["setup"].get("deps_onnx") == source["data_uid"]:
            faults += [f"{resolve.entry_path(entry)}: {reason}" for reason in reasons]
    return None, faults


def obtain_conversion(ck, request, source, calibration=None, count=""):
    """The env entry of the converted file; it is made where it is not there.

    calibration: UID of the calibration images to take; count: how many of them. Else any.
    """
    entry, faults = find_conversion(ck, request, source, count)
    if entry is None:
        for fault in faults:
            print(f"converting again: {fault}", flush=True)
        package = resolve.load_package(ck, CONVERSION_PACKAGE)
        pinned = {"onnx": source["data_uid"]}
        if calibration:
            pinned["calibration"] = calibration
        environment = {"CALIBRATION_COUNT": count} if count else {}
        tags = request.conversion_tags()
        entry = resolve.install(ck, package, tags, environment, pinned)
    return entry


# The plan


def survey_for(ck, request, python, whole=False):
    """The host, with the plans judged that the request may take, of whatever flavour."""
    entries = list_plans(ck, request, request.flavour)
    return survey_host(ck, python, [describe_plan(e, request, whole) for e in entries])


def list_plans(ck, request, flavour):
    """The env entries of the plans that are there with the request's tags; flavour None: any."""
    tags = request.plan_tags(flavour) - {None}
    found = resolve.find_entries(ck, tags, {RANDOM} - request.source)
    return [entry for entry in found if os.path.exists(resolve.entry_path(entry))]


def find_plan(ck, request, flavour, host, whole=False):
    """(env entry of the plan that the request would build now or None, why none of those there)

    whole: hash also what nobody has touched.
    """
    fitting, faults = [], []
    refused = {RANDOM} - request.source
    for entry in resolve.find_entries(ck, request.plan_tags(flavour), refused):
        reasons = judge_entry(ck, entry, request, host, whole)
        if reasons:
            faults += [f"{resolve.entry_path(entry)}: {reason}" for reason in reasons]
        else:
            fitting.append(entry)
    # Plans of one key are interchangeable.
    keys = {json.dumps(entry["meta"]["customize"]["key"], sort_keys=True) for entry in fitting}
    if len(keys) > 1:
        resolve.fail_ambiguous("weights", request.plan_tags(flavour), fitting)
    return (fitting[0] if fitting else None), faults


def judge_entry(ck, entry, request, host, whole=False):
    """Why the plan of an env entry is not what the request would build now; [] where it is."""
    meta = entry["meta"]
    if not os.path.exists(resolve.entry_path(entry)):
        return ["the plan is gone"]
    key = meta["customize"]["key"]
    source = find_source_of(ck, entry, request)
    if source:
        conversion = {name: key[name] for name in ("source_sha256", "precision", "calibration")}
        faults = judge_conversion(ck, conversion, source)
        if faults:
            return faults
    question = describe_plan(entry, request, whole)
    text = json.dumps(question)
    if text not in host.judged:
        host = survey_host(ck, host.python, [question])
    answer = host.judged[text]
    if "error" in answer:
        kernel.fail(answer["error"])
    return answer["faults"]


def describe_plan(entry, request, whole=False):
    """The question about a plan that ck_mlperf.tensorrt.survey answers."""
    meta = entry["meta"]
    customize = meta["customize"]
    converted = meta["deps"].get("converted", {}).get("dict")
    model = converted["customize"] if converted else {}
    flavour = min(tag for tag in meta["tags"] if FLAVOUR.fullmatch(tag))
    options = {
        name: customize.get("install_env", {}).get(variable)
        for variable, name in BUILD_OPTIONS.items()
    }
    return {
        "plan": customize["full_path"],
        "model": model.get("full_path", ""),
        "plan_sha256": customize["recipe"]["sha256"],
        "onnx_sha256": model.get("recipe", {}).get("sha256"),
        "precision": request.precision,
        "input": request.input,
        "max_batch": request.max_batch,
        "flavour": "tensorrt_rtx" if flavour == RTX else "tensorrt",
        "major": None if flavour == RTX else flavour.partition("-")[2],
        "whole": whole,
        **{name: value for name, value in options.items() if value},
    }


def find_source_of(ck, entry, request):
    """The env entry of the ONNX file that a plan was made from, as it is registered now."""
    uid = entry["meta"]["setup"].get("deps_onnx")
    source = resolve.load_entry(ck, uid) if uid else None
    sources = [source] if source else list_sources(ck, request.source)
    return sources[0] if len(sources) == 1 else None


def obtain_plan(ck, request, flavour, host):
    """The env entry of the plan; it is built, and all that it needs, where it is not there."""
    entry, faults = find_plan(ck, request, flavour, host)
    if entry is None:
        check_sources(ck, request, flavour)
        for fault in faults:
            print(f"building again: {fault}", flush=True)
        package = resolve.load_package(ck, PLAN_PACKAGE)
        environment = {"ML_MODEL_MAX_BATCH_SIZE": str(request.max_batch)}
        entry = resolve.install(ck, package, request.plan_tags(flavour), environment)
        for surveyed in SURVEYS.values():  # a benchmark runs again in this process
            surveyed.judged.clear()
    return entry


def describe_install(ck, request, flavour):
    """The command that makes the plan, also where CK cannot find the package by the tags."""
    tags = request.plan_tags(flavour) - {"image-classification"}
    meta = resolve.load_package(ck, PLAN_PACKAGE)["meta"]
    unknown = tags - set(meta["tags"]) - set(meta["variations"])
    if not unknown:
        return f"ck install package --tags={join_tags(tags)} --quiet"
    return (
        f"ck install package:{PLAN_PACKAGE} --tags={join_tags(tags - unknown)} "
        f"--extra_tags={join_tags(unknown)} "
        f"--env.ML_MODEL_MAX_BATCH_SIZE={request.max_batch} --quiet"
    )


def explain(ck, tags, python):
    """(whether a run with the tags would reuse a plan, the reasons, one a line). Makes nothing."""
    request = read_request(tags)
    host = survey_for(ck, request, python, whole=True)
    flavour = choose_flavour(request.flavour, host.installed, host.gpus)
    entry, faults = find_plan(ck, request, flavour, host, whole=True)
    if entry:
        return True, [f"reused: {resolve.entry_path(entry)}", "all parts of its key agree"]
    lines = ["built: a run with these tags would make the plan"]
    lines += faults or [
        f"no plan is registered with the tags {join_tags(request.plan_tags(flavour))}"
    ]
    if flavour not in host.installed:
        lines.append(f"{flavour} is not installed: pip would install it")
    lines += explain_conversion(ck, request, flavour)
    lines.append(f"to make it now: {describe_install(ck, request, flavour)}")
    return False, lines


def explain_conversion(ck, request, flavour):
    """What is there of the chain from the source to the converted file. Ends where none can be."""
    source = check_sources(ck, request, flavour)
    if source is None:
        wanted = ONNX | request.source
        packages = find_source_packages(ck, wanted)
        if len(packages) != 1:
            fail_unresolved(wanted, packages)
        return [f"the ONNX file is not there: package:{packages[0]['data_uoa']} would install it"]
    lines = [f"the ONNX file is {resolve.entry_path(source)}"]
    own = dataclasses.replace(request, source=frozenset(source_tags(source)))
    converted, faults = find_conversion(ck, own.for_conversion(), source)
    if converted:
        lines.append(f"the converted file is {resolve.entry_path(converted)}")
    else:
        lines += faults or ["it is not converted yet: package:model-onnx-convert would do that"]
    recipe = source["meta"]["customize"]["recipe"]
    if request.precision == "int8" and not converted and recipe["dataset"] != "digits":
        find_original(ck, calibration_tags(recipe)[0], recipe["dataset"])
    return lines


# What the packages do once CK knows their tags, before it names the folder


def prepare_conversion(i):
    """pre_path of the package that converts an ONNX file. Returns values for its steps: none."""
    ck, deps = i["ck_kernel"], i["deps"]
    request = read_package_request(i)
    source = resolve_source(ck, deps["onnx"], request.source)
    recipe = source["meta"]["customize"]["recipe"]
    if recipe.get("conversion"):
        kernel.fail(
            f"{resolve.entry_path(source)} is a converted file itself: convert what it was made "
            "from"
        )
    if request.precision == "tf32":
        kernel.fail("an ONNX file has no tf32: it is a way to compute fp32. Convert to fp32")
    if request.precision == "int8":
        resolve_calibration(ck, deps["calibration"], recipe)
    name_installation(i, source)
    return {}


def prepare_plan(i):
    """pre_path of the package that makes a plan. Returns values for its steps."""
    ck, deps = i["ck_kernel"], i["deps"]
    request = read_package_request(i)
    request = dataclasses.replace(request, max_batch=read_package_batch(i, request))
    host = survey_host(ck, kernel.dep_path(deps["python"]))
    flavour = choose_flavour(request.flavour, host.installed, host.gpus)
    source = resolve_source(ck, deps["onnx"], request.source)
    own = dataclasses.replace(request, source=frozenset(source_tags(source)))
    calibration = deps["calibration"].get("uoa")
    count = i["install_env"].get("CALIBRATION_COUNT", "")
    conversion = own.for_conversion()
    converted = obtain_conversion(ck, conversion, source, calibration, count)
    resolve.take(deps["converted"], converted, conversion.conversion_tags())
    resolve.resolve_library(ck, deps["tensorrt"], f"lib,python-package,{flavour}")
    found = {tag for tag in deps["tensorrt"]["dict"]["tags"] if FLAVOUR.fullmatch(tag)}
    if flavour not in found | {"tensorrt"}:
        kernel.fail(f"{flavour} was asked for, and {join_tags(found)} is what CK has registered")
    flavour = min(found)
    i["customize"]["package_extra_name"] = f" ({join_tags(own.source)}, {flavour})"
    name_installation(i, source, {flavour, f"maxbatch.{request.max_batch}"})
    return {
        "ML_MODEL_MAX_BATCH_SIZE": str(request.max_batch),
        "TENSORRT_FLAVOUR": "tensorrt_rtx" if flavour == RTX else "tensorrt",
    }


def read_package_request(i):
    """The request that an installation's tags make, with those that --dep_add_tags.onnx adds."""
    dep = i["deps"]["onnx"]
    tags = set(i["tags"]) | (split_tags(dep["tags"]) - ONNX)
    return read_request(tags, default_source="" if dep.get("uoa") else DEFAULT_SOURCE)


def read_package_batch(i, request):
    """The largest batch: what the tags say, else ML_MODEL_MAX_BATCH_SIZE."""
    named = [tag for tag in i["tags"] if tag.startswith("maxbatch.")]
    text = str(i["install_env"].get("ML_MODEL_MAX_BATCH_SIZE", ""))
    size = read_max_batch(text) if text else request.max_batch
    if named and size != request.max_batch:
        kernel.fail(
            f"{named[0]} and ML_MODEL_MAX_BATCH_SIZE={text} contradict each other: give one"
        )
    return size


def name_installation(i, source, words=frozenset()):
    """Give what is installed its tags, the source's and `words`, and a folder of its own.

    CK names the folder after the variations and extra tags that were given, not after deps.
    """
    path = os.path.abspath(resolve.entry_path(source))
    name = re.sub(r"[^\w.+-]+", "_", source["meta"]["customize"]["recipe"]["name"])
    digest = hashlib.sha256(path.encode()).hexdigest()[:6]
    extra = sorted(words - set(i["tags"]))
    i["customize"]["extra_suggested_path"] = "-" + "-".join([name, digest, *extra])
    i["tags"].extend(sorted((words | source_tags(source)) - set(i["tags"])))


PREPARATIONS = {"conversion": prepare_conversion, "plan": prepare_plan}
