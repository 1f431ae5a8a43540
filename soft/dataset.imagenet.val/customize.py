"""A folder of images with their labels: val_map.txt, or the official val.txt.

ImageNet's may also be ILSVRC2012_img_val.tar, or a folder of each class.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog.home import registering
from ck_mlperf.catalog.kernel import Catalog
from ck_mlperf.catalog.registration import arrange_imagenet, find_image_folder, register
from ck_mlperf.images.dataset import read_image_list

SOFTS = ["dataset.imagenet.val", "dataset.digits"]
WHOLE_SET = 50_000


@registering
def version_cmd(i: dict[str, Any]) -> dict[str, Any]:
    folder = find_folder(i, i["full_path"])
    images = read_image_list(Path(folder))
    i["customize"]["image_count"] = len(images)
    version = register(Catalog(i["ck_kernel"]), SOFTS, folder, images)
    return {"return": 0, "cmd": "", "version": version}


@registering
def setup(i: dict[str, Any]) -> dict[str, Any]:
    customize = i["customize"]
    folder = customize["full_path"] = find_folder(i, customize["full_path"])
    if customize["image_count"] == WHOLE_SET:
        i["tags"].append("full")
    i["env"][customize["env_prefix"]] = folder
    return {"return": 0, "bat": ""}


def find_folder(i: dict[str, Any], path: str) -> str:
    """The folder of images with labels, for what the user has named."""
    if i["customize"]["env_prefix"] == "CK_ENV_DATASET_IMAGENET_VAL":
        return arrange_imagenet(Catalog(i["ck_kernel"]), path)
    return find_image_folder(path)
