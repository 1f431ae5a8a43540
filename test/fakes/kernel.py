"""CK's kernel in memory: env entries that are looked up, and packages that only say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ck_mlperf.catalog.kernel import Catalog


class FakeKernel:
    """installed: the requests of all installations, which give an entry with their tags.

    module_folder: where CK's own modules are.
    """

    def __init__(self) -> None:
        self.__file__ = ""
        self.module_folder = Path()
        self.work: dict[str, Any] = {}
        self.entries: dict[str, dict[str, Any]] = {}
        self.packages: dict[str, dict[str, Any]] = {}
        self.installed: list[dict[str, Any]] = []
        self.searches = 0

    def add(self, uid: str, tags: str, path: str = "/", deps: dict | None = None, **notes) -> None:
        """An env entry. deps: {key: UID}. notes: in its `customize`."""
        self.entries[uid] = {
            "tags": tags.split(","),
            "setup": {f"deps_{key}": value for key, value in (deps or {}).items()},
            "deps": {},
            "customize": {"full_path": path, **notes},
        }

    def access(self, i: dict[str, Any]) -> dict[str, Any]:
        answer = getattr(self, f"_{i['action']}_{i['module_uoa']}")
        return {"return": 0, **answer(i)}

    def _search_env(self, i):
        self.searches += 1
        tags = {tag for tag in i.get("tags", "").split(",") if tag}
        path = i.get("search_dict", {}).get("customize", {}).get("full_path")
        found = [
            {"data_uid": uid, "meta": meta}
            for uid, meta in self.entries.items()
            if tags <= set(meta["tags"]) and path in (None, meta["customize"]["full_path"])
        ]
        return {"lst": found}

    def _search_package(self, i):
        return {"lst": [{"data_uid": name, "meta": meta} for name, meta in self.packages.items()]}

    def _load_env(self, i):
        meta = self.entries.get(i["data_uoa"])
        return {"data_uid": i["data_uoa"], "dict": meta} if meta else {"return": 16}

    def _find_module(self, i):
        return {"path": str(self.module_folder / i["data_uoa"])}

    def _delete_env(self, i):
        del self.entries[i["data_uoa"]]
        return {}

    def _load_soft(self, i):
        return {"data_uid": f"soft-{i['data_uoa']}"}

    def _load_package(self, i):
        meta = self.packages.get(i["data_uoa"], {"tags": []})
        return {"data_uid": i["data_uoa"], "data_uoa": i["data_uoa"], "dict": meta}

    def _search_in_variations_misc(self, i):
        tags = set(i["tags"].split(","))
        found = [
            {"data_uid": name, "data_uoa": name, "meta": meta}
            for name, meta in self.packages.items()
            if tags <= {*meta["tags"], *meta.get("variations", {})}
        ]
        return {"lst": found}

    def _install_package(self, i):
        self.installed.append(i)
        uid = f"installed-{len(self.installed)}"
        tags = ",".join(filter(None, [i["tags"], i["extra_tags"]]))
        self.add(uid, tags, deps=i["preset_deps"])
        return {"env_data_uid": uid}


def make_catalog() -> tuple[Catalog, FakeKernel]:
    kernel = FakeKernel()
    return Catalog(kernel), kernel
