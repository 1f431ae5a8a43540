"""Env entries that stand for the same thing, which older commits could register.

CK asks on the terminal which one is meant, and ends in a traceback where there is no terminal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ck_mlperf.catalog.kernel import Kernel
from ck_mlperf.common.files import write_file

_META, _SCRIPT = ".cm/meta.json", "env.sh"


def merge_duplicates(ck: Kernel) -> None:
    """Make one of the env entries that stand for the same thing: the one with the lowest UID.

    What was made from another one then refers to that one. Needs the home's lock.
    """
    request = {"action": "search", "module_uoa": "env", "add_meta": "yes"}
    entries = {entry["data_uid"]: entry for entry in ck.access(request)["lst"]}
    merged = find_duplicates({uid: entries[uid]["meta"] for uid in sorted(entries)})
    if not merged:
        return
    for entry in entries.values():
        if entry["data_uid"] not in merged:
            for name in (_META, _SCRIPT):
                _replace_uids(Path(entry["path"], name), merged)
    for uid in merged:
        ck.access({"action": "delete", "module_uoa": "env", "data_uoa": uid, "force": "yes"})


def find_duplicates(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """{UID of a duplicate: UID of the entry that stands for it}, in the order of replacement.

    entries: {UID: meta}. Duplicates have the same path, soft entry, tags, and set-up, in which
    duplicates of what they were made from count as one.
    """
    merged: dict[str, str] = {}
    while True:
        kept: dict[str, str] = {}
        found = {}
        for uid, meta in entries.items():
            if uid not in merged and "tmp" not in meta.get("tags", ()):
                path = meta.get("customize", {}).get("full_path")
                thing = [path, meta.get("soft_uoa"), sorted(meta["tags"]), meta.get("setup")]
                identity = _replace(json.dumps(thing, sort_keys=True), merged)
                if path and kept.setdefault(identity, uid) != uid:
                    found[uid] = kept[identity]
        if not found:
            return merged
        merged.update(found)


def _replace_uids(path: Path, merged: Mapping[str, str]) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    replaced = _replace(text, merged)
    if replaced != text:
        write_file(path, replaced)


def _replace(text: str, merged: Mapping[str, str]) -> str:
    for duplicate, uid in merged.items():
        text = text.replace(duplicate, uid)
    return text
