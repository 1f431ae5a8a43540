"""An ONNX classifier, with the recipe that imagenet_helper.model reads from it."""

import json
import os
import subprocess
import sys

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "script", "hooks")
)
import ck_hooks


def version_cmd(i):
    model = os.path.abspath(i["full_path"])
    python, environment = ck_hooks.dep_python(i["deps"])
    process = subprocess.run(
        [python, "-m", "imagenet_helper.model", model],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if process.returncode:  # it has said on stderr what is wrong
        raise SystemExit(process.returncode)
    i["customize"]["recipe"] = recipe = json.loads(process.stdout)
    ck_hooks.forget_registration(i["ck_kernel"], "model.onnx", model)
    return {"return": 0, "cmd": "", "version": ck_hooks.name_version(model, recipe)}


def setup(i):
    customize = i["customize"]
    customize["full_path"] = os.path.abspath(customize["full_path"])
    recipe = customize["recipe"]
    i["tags"] += [tag for tag in (recipe["name"], recipe["weights"]) if tag not in i["tags"]]
    i["env"][customize["env_prefix"]] = customize["full_path"]
    return {"return": 0, "bat": ""}
