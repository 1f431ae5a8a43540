"""The ONNX file as it was exported, from which all else is made."""

from __future__ import annotations

from collections.abc import Collection

from ck_mlperf.catalog.kernel import Catalog, Entry, Package
from ck_mlperf.catalog.request import CONVERTED, ONNX, RANDOM
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.suggest import suggest
from ck_mlperf.common.tags import join_tags


def find_sources(catalog: Catalog, tags: Collection[str]) -> list[Entry]:
    """The registered ONNX files with the tags that may be converted."""
    return catalog.find({*tags, *ONNX}, _list_refused(tags))


def obtain_source(catalog: Catalog, key: str, tags: Collection[str], pinned: str = "") -> Entry:
    """The ONNX file that a dep asks for: registered, or else installed.

    key: of the dep, for the messages. pinned: the entry's UID, where --deps.KEY=UID names it.
    """
    wanted, refused = {*tags, *ONNX}, _list_refused(tags)
    entry = catalog.find_one(key, wanted, refused, pinned)
    if entry is None:
        catalog.install(find_source_package(catalog, tags), wanted)
        entry = catalog.find_one(key, wanted, refused)
    if entry is None:
        raise UserError(f"what was installed has not the tags {join_tags(wanted)}")
    return entry


def find_source_package(catalog: Catalog, tags: Collection[str]) -> Package:
    """The package that brings the ONNX file. Raises UserError where there is not exactly one."""
    wanted = {*tags, *ONNX}
    packages = [
        package
        for package in catalog.find_packages(wanted)
        if CONVERTED in wanted or CONVERTED not in package.tags
    ]
    if len(packages) == 1:
        return packages[0]
    if packages:
        names = ", ".join(package.name for package in packages)
        raise UserError(
            f"more than one package has the tags {join_tags(wanted)}: {names}. "
            "Install one by `ck install package:NAME`, or add a tag that only one has"
        )
    raise UserError(
        f"no model that is registered with CK and no package has the tags {join_tags(wanted)}"
        f"{_describe_unknown(catalog, wanted)}. See `ck show env` and `ck search package "
        "--tags=model`; `ck detect soft:model.onnx --full_path=FILE` registers an ONNX file"
    )


def _describe_unknown(catalog: Catalog, wanted: Collection[str]) -> str:
    """Which of the tags no model has, as the middle of a message."""
    packages = catalog.find_packages(ONNX)
    converted = {tag for package in packages if CONVERTED in package.tags
                 for tag in package.known_tags}  # fmt: skip
    known = {tag for package in packages if CONVERTED not in package.tags
             for tag in package.known_tags}  # fmt: skip
    known.update(*(entry.tags for entry in catalog.find(ONNX, {CONVERTED})))
    words = ""
    for tag in sorted(set(wanted) - known):
        if tag in converted:
            words += f"; only converted files and plans have {tag}: add {CONVERTED}"
        else:
            words += f"; none has {tag}{suggest(tag, known | converted)}"
    return words


def _list_refused(tags: Collection[str]) -> set[str]:
    """Random weights and converted files shadow the model; who wants one says so."""
    return {RANDOM, CONVERTED} - set(tags)
