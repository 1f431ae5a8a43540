"""This repository's own CK commands: `ck ACTION loadgen`.

What `why` and `doctor` say is decided in script/hooks; the others hand their words to a helper
library, in a process of its own.
"""

import contextlib
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog.calibration import obtain_calibration
from ck_mlperf.catalog.host import has_driver, survey_host
from ck_mlperf.catalog.kernel import REPOSITORY, Catalog, Dep, dep_python, fail, hook
from ck_mlperf.catalog.plan import PlanChain
from ck_mlperf.catalog.request import read_request
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.tags import split_tags
from ck_mlperf.tensorrt.names import read_flavour_tag

cfg = {}  # CK puts the module's meta.json here,
work = {}  # its own notes here,
ck = None  # and its kernel here

# What CK itself puts into a request.
REQUEST_KEYS = {"action", "cid", "cids", "data_uoa", "module_uoa", "out", "xcids"}


def init(i):
    return {"return": 0}


@hook
def why(i):
    """Say why a plan with --tags=... would be reused (exit code 0) or built (exit code 2)."""
    tags = split_tags(i.get("tags", ""))
    if "tensorrt" not in tags:
        fail(
            "want the tags of a plan, such as "
            "--tags=model,tensorrt,resnet,converted-from-onnx,fp32,maxbatch.32"
        )
    # CK's Python dep is the interpreter of CK itself.
    is_reused, lines = PlanChain(Catalog(ck), read_request(tags), sys.executable).explain()
    for line in lines:
        ck.out(line)
    if not is_reused:
        sys.stdout.flush()
        raise SystemExit(2)
    return {"return": 0}


@hook
def doctor(i):
    """Run ck_mlperf.loadgen.doctor with everything on its path that a run on a GPU has."""
    if "gpu" not in i:
        fail("want --gpu: the check of this machine's GPU is the only one there is")
    request = read_request(split_tags(i.get("tags", "")))
    host = survey_host(Catalog(ck), sys.executable)
    flavour = request.flavour
    if flavour is None and len(host.flavours) == 1:
        (flavour,) = host.flavours  # even one that does not take this GPU: the report will say so
    flavour = host.choose_flavour(flavour)
    names = ["numpy", "onnx", "onnxruntime", flavour]
    names.append("ck-mlperf")
    if has_driver():  # pycuda is built against CUDA
        names += ["pycuda", "cuda-bindings"]
    python, environment = resolve_libraries(names)
    module, _ = read_flavour_tag(flavour)
    model = os.path.join(REPOSITORY, "package", "model-onnx-digits", "digits.onnx")
    command = ["-m", "ck_mlperf.loadgen.doctor", "--model", model, "--flavour", module]
    command += ["--timings", os.path.join(find_tools(), "ck-doctor-loadgen")]
    calibration = calibrate(model)
    if calibration:
        command += ["--calibration", calibration]
    if i.get("device"):
        command += ["--device", str(i["device"])]
    become([python, *command], environment)


def find_tools():
    """Where CK installs."""
    return os.environ.get("CK_TOOLS") or os.path.join(os.path.expanduser("~"), "CK_TOOLS")


def calibrate(model):
    """The folder of preprocessed images to calibrate the digits network with.

    None where they cannot be made, which has been said: int8 is then not checked.
    """
    with open(os.path.splitext(model)[0] + ".json") as file:
        recipe = json.load(file)
    try:
        with stdout_on_stderr():
            return obtain_calibration(Catalog(ck), recipe).path
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except SystemExit:  # what CK was to install has said why it failed
        pass
    return None


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
    deps = {name: Dep({}) for name in [*names, "python"]}
    with stdout_on_stderr():
        for name, dep in deps.items():
            tags = "compiler,lang-python" if name == "python" else f"lib,python-package,{name}"
            Catalog(ck).resolve(dep, tags)
    return dep_python(deps)


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
