"""The images of a run: the originals, and the array that is made of them for a model.

Tags find a preprocessed set; its manifest decides. It is taken only where the originals that it was
made from are still as they were.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ck_mlperf.catalog.kernel import Catalog, Dep, Entry, describe_ambiguity
from ck_mlperf.catalog.request import CALIBRATION
from ck_mlperf.catalog.step import Installation, Step, identify_path
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.tags import is_ck_tag, join_tags
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.images.source import find_changes, read_manifest

FIRST_IMAGES = "first."
"""A tag of so many images, the first ones of a data set."""

_FROM = "from."
"""A tag of a preprocessed set, which tells it from the same one of other originals."""

_ORIGINAL, _PREPROCESSED = "original", "preprocessed"


class FromOriginals(Step):
    """What a package makes of registered originals, in a folder that tells which these are."""

    def __init__(self, catalog: Catalog, original: Entry) -> None:
        super().__init__(catalog)
        self.original = original

    @classmethod
    def from_installation(cls, installation: Installation) -> FromOriginals:
        dep = installation.deps["dataset"]
        return cls(
            installation.catalog,
            obtain_original(installation.catalog, dep.tags, dep.uid, {CALIBRATION}),
        )

    def prepare(self, installation: Installation) -> dict[str, str]:
        installation.deps["dataset"].take(self.original, installation.deps["dataset"].tags)
        digest = identify_path(self.original.path)
        installation.set_folder(digest, {f"{_FROM}{digest}"}, f"of {self.original.path}")
        return {}


class Preprocessing(FromOriginals):
    """A preprocessed set of registered originals.

    tags: the set's. recipe: the model's, None where `ck install` names its options.
    """

    package = "dataset-preprocessed"

    def __init__(
        self,
        catalog: Catalog,
        tags: Collection[str],
        original: Entry,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(catalog, original)
        self.tags = set(tags)
        self.recipe = recipe

    @classmethod
    def from_installation(cls, installation: Installation) -> Preprocessing:
        environment, dep = installation.environment, installation.deps["dataset"]
        part, dataset = environment["DATASET_PART"], environment["DATASET"]
        original = obtain_original(
            installation.catalog, {*dep.tags, part, dataset}, dep.uid, {CALIBRATION} - {part}
        )
        return cls(installation.catalog, installation.tags, original)

    def find(self) -> tuple[Entry | None, list[str]]:
        """(the set or None, why those that were made from these originals are not it)"""
        faults = []
        for entry in find_sets(self.catalog, self.tags):
            source = find_source_path(self.catalog, entry)
            if source != self.original.path and entry.dep_uid("dataset") != self.original.uid:
                continue
            changes = find_changes(Path(entry.path), Path(self.original.path))
            if not changes:
                return entry, []
            faults += [f"{entry.path}: {change}" for change in changes]
        return None, faults

    def obtain(self) -> Entry:
        """The set; it is made where it is not there."""
        entry, faults = self.find()
        if entry is not None:
            return entry
        for fault in faults:
            print(f"preprocessing again: {fault}", flush=True)
        return self._install(self.tags, self._list_options(), {"dataset": self.original.uid})

    def _list_options(self) -> dict[str, str]:
        """The package's options, by the recipe: CK knows some values as variations, a run any."""
        if self.recipe is None:
            return {}
        image = self.recipe["image"]
        options = {
            "DATASET": self.recipe["dataset"],
            "IMAGE_SIDE": image["side"],
            "IMAGE_CROP": image["crop"],
            "IMAGE_INTERPOLATION": image["interpolation"],
            "IMAGE_CHANNELS": image["channels"],
            "IMAGE_ASPECT": image["aspect"],
        }
        for tag in self.tags:
            if tag.startswith(FIRST_IMAGES):
                options["IMAGE_COUNT"] = tag.removeprefix(FIRST_IMAGES)
        return {name: str(value) for name, value in options.items()}


def resolve_images(catalog: Catalog, images: Dep, dataset: Dep, recipe: Mapping[str, Any]) -> None:
    """Fill in the deps on the images, preprocessed as the recipe says, and on their originals.

    --deps.images=UID names a preprocessed set or originals, --deps.dataset=UID originals.
    Raises UserError where several sets of images fit and none is named, and where what is named
    does not fit.
    """
    asked = images.tags
    tags = asked | {recipe["dataset"], *ImageRecipe.from_dict(recipe["image"]).tags()}
    if not any(tag == "full" or tag.startswith(FIRST_IMAGES) for tag in asked):
        tags.add("full")
    wanted, original = {*dataset.tags, "val", recipe["dataset"]}, None
    named = catalog.load_pinned("images", images.uid) if images.uid else None
    if named:
        _check_named(named, recipe)
        original = named if _ORIGINAL in named.tags else _find_originals(catalog, named)
        if dataset.uid not in ("", original.uid if original else ""):
            raise UserError(
                f"--deps.images={named.uid} and --deps.dataset={dataset.uid} are of different "
                "images: give one of the two"
            )
    if named and _PREPROCESSED in named.tags:
        entry = _renew(catalog, named, original, recipe)
    else:
        pinned = named.uid if named else dataset.uid
        entry, original = _choose(catalog, tags, wanted, pinned, recipe)
    images.take(entry, tags)
    if original and os.path.exists(original.path):
        dataset.take(original, wanted)


def obtain_original(
    catalog: Catalog, tags: Collection[str], pinned: str = "", refused: Collection[str] = ()
) -> Entry:
    """The originals with the tags, or those that --deps.dataset=UID names; installed where needed.

    Raises UserError where there are several.
    """
    entry = catalog.find_one("dataset", tags, refused, pinned)
    if entry is not None:
        if not set(tags) <= entry.tags or entry.tags & set(refused):
            raise UserError(
                f"--deps.dataset={pinned} has the tags {join_tags(entry.tags)}: want one with "
                f"{join_tags(tags)}"
            )
        return entry
    packages = [p for p in catalog.find_packages(tags) if not p.tags & set(refused)]
    if len(packages) != 1:
        names = ", ".join(package.name for package in packages) or "none"
        raise UserError(
            f"no images with the tags {join_tags(tags)} are registered with CK, and not exactly "
            f"one package has them ({names}). Register a folder of them: "
            "`ck detect soft:dataset.NAME --full_path=FOLDER`"
        )
    return catalog.install(packages[0], tags)


def find_sets(catalog: Catalog, tags: Collection[str]) -> list[Entry]:
    """The preprocessed sets with the tags; calibration images only where they are asked for."""
    return catalog.find({*tags, _PREPROCESSED}, {CALIBRATION} - set(tags))


def find_source_path(catalog: Catalog, entry: Entry) -> str | None:
    """The folder that a preprocessed set was made from, as CK has noted it."""
    noted = entry.meta["deps"].get("dataset", {}).get("dict")
    uid = entry.dep_uid("dataset")
    source = Entry("", noted) if noted else catalog.load(uid) if uid else None
    return source.path if source else None


def _choose(
    catalog: Catalog,
    tags: Collection[str],
    wanted: Collection[str],
    pinned: str,
    recipe: Mapping[str, Any],
) -> tuple[Entry, Entry | None]:
    """(the preprocessed set with the tags, its originals where CK has them)"""
    if not pinned and set(wanted) == {"dataset", _ORIGINAL, "val", recipe["dataset"]}:
        originals = catalog.find(wanted, {CALIBRATION})
        paths = {entry.path for entry in originals}
        alone = {  # by their folders: sets whose originals CK has forgotten
            entry.path: entry
            for entry in find_sets(catalog, tags)
            if find_source_path(catalog, entry) not in paths and os.path.exists(entry.path)
        }
        choices = [*originals, *alone.values()]
        if alone and len(choices) > 1:
            advice = "Say which: add the first word of one of these lines"
            raise UserError(describe_ambiguity("images", wanted, choices, advice))
        if alone:
            return _renew(catalog, choices[0], None, recipe), None
    original = obtain_original(catalog, wanted, pinned, {CALIBRATION})
    return Preprocessing(catalog, tags, original, recipe).obtain(), original


def _check_named(entry: Entry, recipe: Mapping[str, Any]) -> None:
    """Raises UserError unless --deps.images names images that the model can be measured with."""
    named = f"--deps.images={entry.uid}"
    if "dataset" not in entry.tags or not entry.tags & {_ORIGINAL, _PREPROCESSED}:
        raise UserError(
            f"{named} has the tags {join_tags(entry.tags)}: want preprocessed images (dataset,"
            f"{_PREPROCESSED}) or originals (dataset,{_ORIGINAL})"
        )
    if CALIBRATION in entry.tags:
        raise UserError(f"{named}: calibration images have no labels to compare with")
    if recipe["dataset"] not in entry.tags:
        raise UserError(f"{named}: the model {recipe['name']} wants images of {recipe['dataset']}")
    if _PREPROCESSED in entry.tags:
        image = ImageRecipe.from_dict(recipe["image"])
        has = ImageRecipe.from_dict(read_manifest(Path(entry.path))["recipe"])
        if has != image:
            raise UserError(
                f"{named} was preprocessed with {' '.join(has.tags())}, the model "
                f"{recipe['name']} wants {' '.join(image.tags())}"
            )


def _find_originals(catalog: Catalog, entry: Entry) -> Entry | None:
    """The originals that a preprocessed set was made from; None where CK has forgotten them."""
    source = find_source_path(catalog, entry)
    originals = catalog.find({"dataset", _ORIGINAL}, {CALIBRATION})
    return next((original for original in originals if original.path == source), None)


def _renew(
    catalog: Catalog, entry: Entry, original: Entry | None, recipe: Mapping[str, Any]
) -> Entry:
    """A preprocessed set, made again where its originals have changed."""
    if original:
        tags = {tag for tag in entry.tags if not is_ck_tag(tag) and not tag.startswith(_FROM)}
        return Preprocessing(catalog, tags, original, recipe).obtain()
    source = find_source_path(catalog, entry)
    changes = find_changes(Path(entry.path), Path(source)) if source else []
    if changes:
        raise UserError(
            f"{entry.path}: {changes[0]}, and CK has forgotten it. Register it again: "
            f"`ck detect soft:dataset.NAME --full_path={source}`"
        )
    return entry
