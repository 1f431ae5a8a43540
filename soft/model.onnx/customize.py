"""An ONNX classifier, with the recipe that ck_mlperf.models.recipe reads from it."""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog import kernel

# CK asks for the version of one file several times in a command.
inspected = {}


def inspect(model, deps):
    """The recipe of a model with the file's sha256, once per state of the files."""
    state = (model, *map(describe_file, (model, os.path.splitext(model)[0] + ".json")))
    if state not in inspected:
        python, environment = kernel.dep_python(deps)
        process = subprocess.run(
            [python, "-m", "ck_mlperf.models.recipe", model],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if process.returncode:  # it has said on stderr what is wrong
            raise SystemExit(process.returncode)
        inspected[state] = json.loads(process.stdout)
    return dict(inspected[state])


def describe_file(path):
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def version_cmd(i):
    model = os.path.abspath(i["full_path"])
    recipe = inspect(model, i["deps"])
    kernel.forget_registration(i["ck_kernel"], "model.onnx", model)
    return {"return": 0, "cmd": "", "version": kernel.name_version(model, recipe)}


def setup(i):
    customize = i["customize"]
    model = customize["full_path"] = os.path.abspath(customize["full_path"])
    customize["recipe"] = recipe = inspect(model, i["deps"])
    own = [recipe["name"], recipe["weights"]]
    conversion = recipe.get("conversion")
    if conversion:
        # To be installed again in the same place, whichever of its tags are named.
        customize["path_install"] = os.path.dirname(model)
        own += ["converted-from-onnx", conversion["precision"]]
        own += [f"input.{conversion['input']}", f"output.{conversion['output']}"]
    i["tags"].extend(tag for tag in own if tag not in i["tags"])
    i["env"][customize["env_prefix"]] = model
    return {"return": 0, "bat": ""}
