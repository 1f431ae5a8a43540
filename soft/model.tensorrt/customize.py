"""A TensorRT plan, with the key and the recipe that its sidecar holds."""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog import registration
from ck_mlperf.catalog.home import registering
from ck_mlperf.catalog.kernel import Catalog


@registering
def version_cmd(i: dict[str, Any]) -> dict[str, Any]:
    plan = os.path.abspath(i["full_path"])
    key, _ = registration.inspect_plan(plan)
    version = registration.register(Catalog(i["ck_kernel"]), ["model.tensorrt"], plan, key)
    return {"return": 0, "cmd": "", "version": version}


@registering
def setup(i: dict[str, Any]) -> dict[str, Any]:
    customize = i["customize"]
    plan = customize["full_path"] = os.path.abspath(customize["full_path"])
    key, recipe = registration.inspect_plan(plan)
    # path_install: to be installed again in the same place, whichever of its tags are named.
    customize.update(key=key, recipe=recipe, path_install=os.path.dirname(plan))
    registration.add_tags(i["tags"], registration.list_plan_tags(key, recipe))
    i["env"][customize["env_prefix"]] = plan
    return {"return": 0, "bat": ""}
