"""A TensorRT plan, with the key and the recipe that its sidecar holds."""

import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog import kernel


def inspect(plan):
    """(key, recipe with the plan's sha256) of a plan, as JSON holds them."""
    from ck_mlperf.common.errors import UserError
    from ck_mlperf.tensorrt.plan import read_sidecar

    try:
        sidecar = read_sidecar(Path(plan)).to_dict()
    except UserError as error:
        kernel.fail(error)
    return sidecar["key"], {**sidecar["recipe"], "sha256": sidecar["plan"]["sha256"]}


def version_cmd(i):
    plan = os.path.abspath(i["full_path"])
    key, _ = inspect(plan)
    kernel.forget_registration(i["ck_kernel"], "model.tensorrt", plan)
    return {"return": 0, "cmd": "", "version": kernel.name_version(plan, key)}


def setup(i):
    customize = i["customize"]
    plan = customize["full_path"] = os.path.abspath(customize["full_path"])
    key, recipe = inspect(plan)
    customize.update(key=key, recipe=recipe)
    # To be installed again in the same place, whichever of its tags are named.
    customize["path_install"] = os.path.dirname(plan)
    own = [recipe["name"], recipe["weights"], key["precision"], f"maxbatch.{key['max_batch']}"]
    if key["flavour"] == "tensorrt_rtx":
        own.append("tensorrt-rtx")
    else:
        own.append(f"tensorrt-{key['version'].partition('.')[0]}")
    conversion = recipe.get("conversion")
    if conversion:
        own += ["converted-from-onnx", f"input.{key['input']}"]
        own.append(f"output.{conversion['output']}")
    i["tags"].extend(tag for tag in own if tag not in i["tags"])
    i["env"][customize["env_prefix"]] = plan
    return {"return": 0, "bat": ""}
