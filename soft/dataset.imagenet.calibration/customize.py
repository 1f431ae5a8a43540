"""A folder of images without labels, for int8 calibration."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog.home import registering
from ck_mlperf.catalog.kernel import Catalog
from ck_mlperf.catalog.registration import find_image_folder, register
from ck_mlperf.images.dataset import list_unlabelled

SOFTS = ["dataset.imagenet.calibration", "dataset.digits.calibration"]


@registering
def version_cmd(i: dict[str, Any]) -> dict[str, Any]:
    folder = find_image_folder(i["full_path"])
    version = register(Catalog(i["ck_kernel"]), SOFTS, folder, list_unlabelled(Path(folder)))
    return {"return": 0, "cmd": "", "version": version}


@registering
def setup(i: dict[str, Any]) -> dict[str, Any]:
    customize = i["customize"]
    folder = customize["full_path"] = find_image_folder(customize["full_path"])
    i["env"][customize["env_prefix"]] = folder
    return {"return": 0, "bat": ""}
