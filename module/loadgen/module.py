"""This repository's own CK commands: `ck ACTION loadgen`.

What `why` and `doctor` say is decided in script/hooks; the others hand their words to a helper
library, in a process of its own.
"""

import contextlib
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog import kernel, plans, resolve

cfg = {}  # CK puts the module's meta.json here,
work = {}  # its own notes here,
ck = None  # and its kernel here

# What CK itself puts into a request.
REQUEST_KEYS = {"action", "cid", "cids", "data_uoa", "module_uoa", "out", "xcids"}


def init(i):
    return {"return": 0}


def why(i):
    """Say why a plan with --tags=... would be reused (exit code 0) or built (exit code 2)."""
    tags = resolve.split_tags(i.get("tags", ""))
    if "tensorrt" not in tags:
        kernel.fail(
            "want the tags of a plan, such as "
            "--tags=model,tensorrt,resnet,converted-from-onnx,fp32,maxbatch.32"
        )
    # CK's Python dep is the interpreter of CK itself.
    is_reused, lines = plans.explain(ck, tags, sys.executable)
    for line in lines:
        ck.out(line)
    if not is_reused:
        sys.stdout.flush()
        raise SystemExit(2)
    return {"return": 0}


def doctor(i):
    """Run ck_mlperf.loadgen.doctor with everything on its path that a run on a GPU has."""
    if "gpu" not in i:
        kernel.fail("want --gpu: the check of this machine's GPU is the only one there is")
    request = plans.read_request(resolve.split_tags(i.get("tags", "")))
    host = plans.survey_host(ck, sys.executable)
    flavour = request.flavour
    if flavour is None and len(host.installed) == 1:
        (flavour,) = host.installed  # even one that does not take this GPU: the report will say so
    flavour = plans.choose_flavour(flavour, host.installed, host.gpus)
    names = ["numpy", "onnx", "onnxruntime", flavour]
    names.append("ck-mlperf")
    if host.has_driver:  # pycuda is built against CUDA
        names += ["pycuda", "cuda-bindings"]
    python, environment = resolve_libraries(names)
    module = "tensorrt_rtx" if flavour == plans.RTX else "tensorrt"
    model = os.path.join(kernel.REPOSITORY, "package", "model-onnx-digits", "digits.onnx")
    command = ["-m", "ck_mlperf.loadgen.doctor", "--model", model, "--flavour", module]
    command += ["--timings", os.path.join(find_tools(), "ck-doctor-loadgen")]
    calibration = obtain_calibration(model)
    if calibration:
        command += ["--calibration", calibration]
    if i.get("device"):
        command += ["--device", str(i["device"])]
    become([python, *command], environment)


def find_tools():
    """Where CK installs."""
    return os.environ.get("CK_TOOLS") or os.path.join(os.path.expanduser("~"), "CK_TOOLS")


def obtain_calibration(model):
    """The folder of preprocessed images to calibrate the digits network with.

    None where they cannot be made, which has been said: int8 is then not checked.
    """
    with open(os.path.splitext(model)[0] + ".json") as file:
        recipe = json.load(file)
    try:
        with stdout_on_stderr():
            entry = plans.resolve_calibration(ck, {"tags": ""}, recipe)
    except SystemExit:
        return None
    return resolve.entry_path(entry)


def analyze(i):
    return run_helper(i, "ck_mlperf.analyze", ["duckdb", "rich"])


def compare(i):
    return run_helper(i, "ck_mlperf.analyze", ["rich"])


def report(i):
    return run_helper(i, "ck_mlperf.analyze", ["jinja2", "matplotlib"])


def serve(i):
    return run_helper(i, "ck_mlperf.analyze", ["jinja2", "matplotlib", "starlette", "uvicorn"])


def explore(i):
    libraries = ["pyyaml", "rich"]
    cluster = str(i.get("cluster", ""))
    if cluster:
        libraries.append("distributed")
    if cluster == "slurm":
        libraries.append("dask-jobqueue")
    if cluster.startswith("ssh:"):
        libraries.append("asyncssh")
    return run_helper(i, "ck_mlperf.explore", libraries)


def run_helper(i, helper, libraries):
    """Run `python -m HELPER ACTION WORD... --KEY=VALUE...`, as the request says.

    The helper parses the words and refuses what it does not know. libraries: what it needs beside
    numpy, as variations of package:lib-python-package; what is missing is installed.
    """
    python, environment = resolve_libraries([*libraries, "numpy", "ck-mlperf"])
    command = ["-m", helper, i["action"], f"--repository={ck.work['dir_local_repo']}", *i["cids"]]
    command += [f"--{key}={i[key]}" for key in sorted(i.keys() - REQUEST_KEYS)]
    become([python, *command], environment)


def resolve_libraries(names):
    """Let CK resolve Python libraries. Returns the interpreter, and an environment with them."""
    deps = {name: {"tags": f"lib,python-package,{name}"} for name in names}
    deps["python"] = {"tags": "compiler,lang-python"}
    with stdout_on_stderr():
        for dep in deps.values():
            resolve.resolve_library(ck, dep, dep["tags"])
    return kernel.dep_python(deps)


@contextlib.contextmanager
def stdout_on_stderr():
    """What an installation says is none of the command's output, which a script may read."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)


def become(command, environment):
    """Go on as another program, which then has the terminal, the signals and the exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environment)
