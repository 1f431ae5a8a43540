"""A folder of images with their labels: val_map.txt, or the official val.txt."""

import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog import kernel


def image_folder(path):
    # CK's users may also give one of the images.
    return os.path.abspath(os.path.dirname(path) if os.path.isfile(path) else path)


def version_cmd(i):
    from ck_mlperf.common.errors import UserError
    from ck_mlperf.images.dataset import read_image_list

    folder = image_folder(i["full_path"])
    try:
        images = read_image_list(Path(folder))
    except UserError as error:
        kernel.fail(error)
    i["customize"]["image_count"] = len(images)
    kernel.forget_registration(i["ck_kernel"], "dataset.imagenet.val", folder)
    kernel.forget_registration(i["ck_kernel"], "dataset.digits", folder)
    return {"return": 0, "cmd": "", "version": kernel.name_version(folder, images)}


def setup(i):
    customize = i["customize"]
    folder = customize["full_path"] = image_folder(customize["full_path"])
    if customize["image_count"] == 50000:
        i["tags"].append("full")
    i["env"][customize["env_prefix"]] = folder
    return {"return": 0, "bat": ""}
