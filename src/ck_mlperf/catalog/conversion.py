"""The converted ONNX file: found, or made from its source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ck_mlperf.catalog.calibration import (
    calibration_tags,
    find_calibration,
    obtain_calibration,
)
from ck_mlperf.catalog.kernel import Catalog, Entry
from ck_mlperf.catalog.request import ONNX, Request
from ck_mlperf.catalog.source import obtain_source
from ck_mlperf.catalog.step import Installation, Step
from ck_mlperf.common.errors import UserError
from ck_mlperf.images.source import read_manifest
from ck_mlperf.models.model_file import hash_model, is_in_state, may_have_external_data


class Conversion(Step):
    """The conversion of an ONNX file.

    calibration: UID of the calibration images to take, count: how many of them; '': any.
    """

    package = "model-onnx-convert"

    def __init__(
        self,
        catalog: Catalog,
        request: Request,
        source: Entry,
        calibration: str = "",
        count: str = "",
    ) -> None:
        super().__init__(catalog)
        self.request = request
        self.source = source
        self.calibration = calibration
        self.count = count

    @classmethod
    def from_installation(cls, installation: Installation) -> Conversion:
        request = installation.read_request()
        source = obtain_source(
            installation.catalog, "onnx", request.source, installation.deps["onnx"].uid
        )
        if request.precision == "tf32":
            raise UserError(
                "an ONNX file has no tf32: it is a way to compute fp32. Convert to fp32"
            )
        return cls(installation.catalog, request, source)

    def find(self) -> tuple[Entry | None, list[str]]:
        """(the converted file or None, why those that are there are not it)"""
        faults = []
        for entry in self.catalog.find(self.request.conversion_tags()):
            if not os.path.exists(entry.path):
                continue
            reasons = self._judge(entry.recipe)
            if not reasons:
                return entry, []
            if entry.dep_uid("onnx") == self.source.uid:
                faults += [f"{entry.path}: {reason}" for reason in reasons]
        return None, faults

    def obtain(self) -> Entry:
        """The converted file; it is made where it is not there."""
        entry, faults = self.find()
        if entry is not None:
            return entry
        for fault in faults:
            print(f"converting again: {fault}", flush=True)
        pinned = {"onnx": self.source.uid}
        if self.calibration:
            pinned["calibration"] = self.calibration
        environment = {"CALIBRATION_COUNT": self.count} if self.count else {}
        return self._install(self.request.conversion_tags(), environment, pinned)

    def prepare(self, installation: Installation) -> dict[str, str]:
        recipe, deps = self.source.recipe, installation.deps
        deps["onnx"].take(self.source, {*self.request.source, *ONNX})
        if recipe.get("conversion"):
            raise UserError(
                f"{self.source.path} is a converted file itself: convert what it was made from"
            )
        if self.request.precision == "int8":
            dep = deps["calibration"]
            tags = calibration_tags(recipe)[1] | dep.tags
            dep.take(obtain_calibration(self.catalog, recipe, dep.tags, dep.uid), tags)
        installation.set_name(self.source)
        return {}

    def _judge(self, recipe: Mapping[str, Any]) -> list[str]:
        conversion = recipe.get("conversion") or {}
        faults = judge_conversion(self.catalog, conversion, self.source)
        if self.source.recipe.get("source_md5") and not recipe.get("source_md5"):
            faults.append("it was made before the network and the md5 of its source were noted")
        if self.count and self.request.precision == "int8":
            used = conversion.get("calibration") or {}
            faults += _compare("calibration.count", self.count, str(used.get("count")))
        return faults


def judge_conversion(catalog: Catalog, conversion: Mapping[str, Any], source: Entry) -> list[str]:
    """Why a converted file is not what would be converted now; [] where it is.

    conversion: what its recipe says of it.
    """
    recipe = source.recipe
    check_source(source)
    faults = _compare("source_sha256", recipe["sha256"], conversion.get("source_sha256"))
    if conversion.get("precision") == "int8":
        calibration = find_calibration(catalog, recipe)
        used = conversion.get("calibration") or {}
        if calibration:
            digest = read_manifest(Path(calibration.path))["images_sha256"]
            faults += _compare("calibration.images_sha256", digest, used.get("images_sha256"))
        elif catalog.find(calibration_tags(recipe)[0]):
            faults.append("the calibration images that are registered now are others")
    return faults


def check_source(source: Entry) -> None:
    """Raise UserError where an ONNX model's sha256 is not that of what is there now."""
    path, noted = Path(source.path), source.customize.get("files")
    if not path.is_file():  # whoever takes it says so
        return
    if noted is not None and is_in_state(path, noted):
        return
    advice = f"Register it again: ck detect soft:model.onnx --full_path={path}"
    if noted is None and may_have_external_data(path):
        raise UserError(
            f"{path} keeps weights in other files, and was registered with CK by an earlier "
            f"version, which left them out of its sha256. {advice}"
        )
    found = hash_model(path, source.recipe.get("external_files", []))
    if found != source.recipe["sha256"]:
        raise UserError(
            f"{path} has changed since it was registered with CK: its sha256 is {found}, was "
            f"{source.recipe['sha256']}. {advice}"
        )


def _compare(name: str, wanted: object, found: object) -> list[str]:
    if wanted == found:
        return []
    return [f"{name} is {_shorten(wanted)}, it was made with {_shorten(found)}"]


def _shorten(value: object) -> str:
    """A value as a person reads it; of a hash, what tells it apart."""
    text = str(value)
    return text if len(text) < 64 else f"{text[:16]}..."
