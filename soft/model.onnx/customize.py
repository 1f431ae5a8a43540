"""An ONNX classifier, with the recipe that ck_mlperf.models.recipe reads from it."""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog import registration
from ck_mlperf.catalog.home import registering
from ck_mlperf.catalog.kernel import Catalog, read_deps


@registering
def version_cmd(i: dict[str, Any]) -> dict[str, Any]:
    model = os.path.abspath(i["full_path"])
    recipe, _ = registration.inspect_onnx(model, read_deps(i["deps"]))
    version = registration.register(Catalog(i["ck_kernel"]), ["model.onnx"], model, recipe)
    return {"return": 0, "cmd": "", "version": version}


@registering
def setup(i: dict[str, Any]) -> dict[str, Any]:
    customize = i["customize"]
    model = customize["full_path"] = os.path.abspath(customize["full_path"])
    recipe, customize["files"] = registration.inspect_onnx(model, read_deps(i["deps"]))
    customize["recipe"] = recipe
    if recipe.get("conversion"):
        # To be installed again in the same place, whichever of its tags are named.
        customize["path_install"] = os.path.dirname(model)
    registration.add_tags(i["tags"], registration.list_onnx_tags(recipe))
    i["env"][customize["env_prefix"]] = model
    return {"return": 0, "bat": ""}
