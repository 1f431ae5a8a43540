"""What CK notes of a model or of images when they are registered with it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ck_mlperf.catalog.kernel import Catalog, Dep, dep_python
from ck_mlperf.catalog.request import CONVERTED, list_option_tags, max_batch_tag
from ck_mlperf.catalog.step import identify_path
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.tags import NAME_RULE, is_name
from ck_mlperf.images.layout import arrange_images
from ck_mlperf.models.model_file import is_in_state
from ck_mlperf.tensorrt.names import make_flavour_tag
from ck_mlperf.tensorrt.plan_file import read_sidecar

_State = tuple[int, int, int] | None
# CK asks for the version of one file several times in a command: {model: (the recipe's file as it
# was, what was printed)}.
_inspected: dict[str, tuple[_State, dict[str, Any]]] = {}
# The same of images: {what the user has, as it was: the folder with labels}.
_arranged: dict[tuple[str, _State], str] = {}


def register(catalog: Catalog, softs: list[str], path: str, content: Any) -> str:
    """Let CK forget what was registered at `path`, under any of the soft entries.

    Returns a version for what has none: CK takes two things of one version for the same. content:
    what makes it another thing, as JSON holds it.
    """
    for soft in softs:
        catalog.forget(soft, path)
    return hashlib.sha256(json.dumps([path, content]).encode()).hexdigest()[:12]


def find_image_folder(path: str) -> str:
    """The folder of images that CK's users may also name by one of the images."""
    return os.path.abspath(os.path.dirname(path) if os.path.isfile(path) else path)


def arrange_imagenet(catalog: Catalog, path: str) -> str:
    """The folder of ImageNet's images with labels, for what a user has at `path`.

    Once per state of it: CK asks several times in a command. What has to be made, links to the
    images with their labels or an unpacked archive, is made in $CK_TOOLS. Raises UserError.
    """
    path = os.path.abspath(path)
    state = (path, _describe_file(path))
    if state not in _arranged:
        tools = os.environ.get("CK_TOOLS") or os.path.expanduser("~/CK-TOOLS")  # as CK itself does
        name = f"dataset-imagenet-val-{identify_path(path)}"
        folder = arrange_images(Path(path), Path(tools, name), lambda: _obtain_labels(catalog))
        _arranged[state] = str(folder)
    return _arranged[state]


def _obtain_labels(catalog: Catalog) -> Path:
    """The folder of ImageNet's val.txt and synsets.txt; it is installed where it is not there."""
    tags = {"dataset", "imagenet", "aux"}
    entry = catalog.find_one("aux", tags)
    if entry is None:
        entry = catalog.install(catalog.load_package("dataset-imagenet-aux"), tags)
    return Path(entry.path)


def inspect_onnx(model: str, deps: Mapping[str, Dep]) -> tuple[dict[str, Any], list[Any]]:
    """(the recipe of a model with its sha256, the state of the files), once per state.

    As long as the files stay in that state (`model_file.is_in_state`), so does the sha256.
    Ends the `ck` command where the model cannot be read; the process has said on stderr why.
    """
    recipe_file = os.path.splitext(model)[0] + ".json"
    noted, printed = _inspected.get(model, (None, {"files": []}))
    stated = _describe_file(recipe_file)
    if stated != noted or not is_in_state(Path(model), printed["files"]):
        python, environment = dep_python(deps)
        process = subprocess.run(
            [python, "-m", "ck_mlperf.models.recipe", model],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if process.returncode:
            raise SystemExit(process.returncode)
        printed = json.loads(process.stdout)
        _inspected[model] = stated, printed
    recipe = dict(printed)
    return recipe, recipe.pop("files")


def list_onnx_tags(recipe: Mapping[str, Any]) -> list[str]:
    """The tags that an ONNX file gets of its recipe."""
    tags = [recipe["name"], recipe["weights"]]
    conversion = recipe.get("conversion")
    if conversion:
        options = (conversion["precision"], conversion["input"], conversion["output"])
        tags += [CONVERTED, *list_option_tags(*options)]
    return tags


def inspect_plan(plan: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(key, recipe with the plan's sha256) of a plan, as JSON holds them. Raises UserError."""
    sidecar = read_sidecar(Path(plan)).to_dict()
    return sidecar["key"], {**sidecar["recipe"], "sha256": sidecar["plan"]["sha256"]}


def list_plan_tags(key: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    """The tags that a plan gets of its key and its recipe."""
    flavour = make_flavour_tag(key["flavour"], key["version"])
    tags = [recipe["name"], recipe["weights"], max_batch_tag(key["max_batch"]), flavour]
    conversion = recipe.get("conversion")
    if not conversion:
        return [*tags, key["precision"]]
    options = list_option_tags(key["precision"], key["input"], conversion["output"])
    return [*tags, CONVERTED, *options]


def add_tags(tags: list[str], own: list[str]) -> None:
    """Add to CK's list of tags those that it has not yet. Raises UserError on what is no tag."""
    odd = [tag for tag in own if not is_name(tag)]
    if odd:
        raise UserError(f"{odd[0]!r} cannot be a tag: want {NAME_RULE}")
    tags.extend(tag for tag in own if tag not in tags)


def _describe_file(path: str) -> _State:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
