"""A folder of images without labels, for int8 calibration."""

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
    from ck_mlperf.images.dataset import list_unlabelled

    folder = image_folder(i["full_path"])
    try:
        images = list_unlabelled(Path(folder))
    except UserError as error:
        kernel.fail(error)
    for soft in ("dataset.imagenet.calibration", "dataset.digits.calibration"):
        kernel.forget_registration(i["ck_kernel"], soft, folder)
    return {"return": 0, "cmd": "", "version": kernel.name_version(folder, images)}


def setup(i):
    customize = i["customize"]
    folder = customize["full_path"] = image_folder(customize["full_path"])
    i["env"][customize["env_prefix"]] = folder
    return {"return": 0, "bat": ""}
