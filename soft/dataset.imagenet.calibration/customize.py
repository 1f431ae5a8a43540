"""A folder of images without labels, for int8 calibration."""

import os
import sys
from pathlib import Path

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "script", "hooks")
)
import ck_hooks


def image_folder(path):
    # CK's users may also give one of the images.
    return os.path.abspath(os.path.dirname(path) if os.path.isfile(path) else path)


def version_cmd(i):
    ck_hooks.import_helper("imagenet")
    from imagenet_helper.dataset import list_unlabelled
    from imagenet_helper.errors import UserError

    folder = image_folder(i["full_path"])
    try:
        images = list_unlabelled(Path(folder))
    except UserError as error:
        ck_hooks.fail(error)
    for soft in ("dataset.imagenet.calibration", "dataset.digits.calibration"):
        ck_hooks.forget_registration(i["ck_kernel"], soft, folder)
    return {"return": 0, "cmd": "", "version": ck_hooks.name_version(folder, images)}


def setup(i):
    customize = i["customize"]
    folder = customize["full_path"] = image_folder(customize["full_path"])
    i["env"][customize["env_prefix"]] = folder
    return {"return": 0, "bat": ""}
