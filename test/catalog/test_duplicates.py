"""Entries of one thing are merged; entries that differ stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ck_mlperf.catalog.duplicates import find_duplicates
from ck_mlperf.catalog.home import hold_home

from ..fakes.kernel import FakeKernel


def entry(path: str, tags: str = "lib", soft: str = "soft", **deps: str) -> dict[str, Any]:
    setup = {f"deps_{key}": uid for key, uid in deps.items()}
    return {
        "tags": tags.split(","),
        "soft_uoa": soft,
        "customize": {"full_path": path},
        "setup": setup,
    }


class HomeOnDisk(FakeKernel):
    """Its entries are files, as CK's are."""

    def __init__(self, folder: Path, entries: dict[str, dict[str, Any]]) -> None:
        super().__init__()
        self.work["dir_local_repo"] = str(folder)
        self.folder = folder
        for uid, meta in entries.items():
            (folder / uid / ".cm").mkdir(parents=True)
            (folder / uid / ".cm/meta.json").write_text(json.dumps(meta))
            deps = meta["setup"].values()
            (folder / uid / "env.sh").write_text("".join(f". /env/{dep}/env.sh\n" for dep in deps))

    def _search_env(self, i):
        self.searches += 1
        found = sorted(self.folder.glob("*/.cm/meta.json"), reverse=True)
        return {
            "lst": [
                {
                    "data_uid": path.parts[-3],
                    "path": str(path.parents[1]),
                    "meta": json.loads(path.read_text()),
                }
                for path in found
            ]
        }

    def _delete_env(self, i):
        for name in (".cm/meta.json", "env.sh"):
            (self.folder / i["data_uoa"] / name).unlink()
        return {}


def test_entries_of_one_thing_are_one_and_what_was_made_from_them(tmp_path):
    entries = {
        "b0": entry("/python"),
        "a0": entry("/python"),
        "a1": entry("/numpy", python="b0"),
        "b1": entry("/numpy", python="a0"),
        "c1": entry("/model", python="b0", numpy="b1"),
    }
    with hold_home(HomeOnDisk(tmp_path, entries)):
        pass
    left = {path.parts[-3]: json.loads(path.read_text()) for path in tmp_path.glob("*/.cm/*.json")}
    assert left == {
        "a0": entry("/python"),
        "a1": entry("/numpy", python="a0"),
        "c1": entry("/model", python="a0", numpy="a1"),
    }
    assert (tmp_path / "c1/env.sh").read_text() == ". /env/a0/env.sh\n. /env/a1/env.sh\n"


def test_what_differs_stays():
    other_python = {"p1": entry("/python3.11"), "p2": entry("/python3.12")}
    unlike = [
        entry("/numpy", python="p1"),
        entry("/numpy", python="p2"),  # pip's folder is the same
        entry("/numpy", "lib,other", python="p1"),
        entry("/numpy", soft="another", python="p1"),
        entry("/numpy", "lib,tmp", python="p1"),
        entry("/numpy", "lib,tmp", python="p1"),
    ]
    assert not find_duplicates(other_python | {f"x{n}": meta for n, meta in enumerate(unlike)})
