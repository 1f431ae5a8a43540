"""A step of the chain from tags to a plan or to images, handed on to CK's hook.

CK calls back in the middle of an installation (`pre_path`): it knows the tags by then, and has not
named the folder. What asked for the installation knows all that the hook needs, so it is handed
over, within this process. Where a user has typed `ck install`, the step is made from the tags.
"""

from __future__ import annotations

import abc
import contextvars
import hashlib
import os
import re
from collections.abc import Collection, Mapping
from typing import TypeVar

from ck_mlperf.catalog import kernel
from ck_mlperf.catalog.kernel import Catalog, Entry, read_deps
from ck_mlperf.catalog.request import (
    DEFAULT_SOURCE,
    ONNX,
    Request,
    read_request,
    source_tags,
)

_Self = TypeVar("_Self", bound="Step")

_handed_over: contextvars.ContextVar[Step | None] = contextvars.ContextVar("step", default=None)


def identify_path(path: str) -> str:
    """A short word for a file or folder, for the name of what is made from it."""
    return hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:6]


class Installation:
    """An installation whose folder CK has not named yet. What is set goes to CK."""

    def __init__(self, i: kernel.Request) -> None:
        self.catalog = Catalog(i["ck_kernel"])
        self.deps = read_deps(i["deps"])
        self.tags: list[str] = i["tags"]
        self.environment: Mapping[str, str] = i["install_env"]
        self._customize = i["customize"]

    def read_request(self) -> Request:
        """The request that the tags make, with those that --dep_add_tags.onnx adds."""
        dep = self.deps["onnx"]
        tags = {*self.tags, *(dep.tags - ONNX)}
        return read_request(tags, default_source="" if dep.uid else DEFAULT_SOURCE)

    def set_name(self, source: Entry, words: Collection[str] = (), title: str = "") -> None:
        """Give what is made from an ONNX file its tags, the source's and `words`, and a folder."""
        name = re.sub(r"[^\w.+-]+", "_", source.recipe["name"])
        digest = identify_path(source.path)
        extra = sorted(set(words) - set(self.tags))
        self.set_folder("-".join([name, digest, *extra]), {*words, *source_tags(source)}, title)

    def set_folder(self, name: str, tags: Collection[str], title: str = "") -> None:
        """Give what is installed further tags, and a folder of its own with `name` in its name.

        CK names the folder after the variations and extra tags that were given, not after deps.
        title: what CK's lists say beside the package's name.
        """
        self._customize["extra_suggested_path"] = f"-{name}"
        if title:
            self._customize["package_extra_name"] = f" ({title})"
        self.tags.extend(sorted(set(tags) - set(self.tags)))


class Step(abc.ABC):
    """What is to be installed, and what is known of it."""

    package: str
    """The package that installs it, where one step obtains another."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    @classmethod
    def of(cls: type[_Self], installation: Installation) -> _Self:
        """The step that asked for this installation, else the one that its tags ask for."""
        step = _handed_over.get()
        return step if isinstance(step, cls) else cls.from_installation(installation)

    @classmethod
    @abc.abstractmethod
    def from_installation(cls: type[_Self], installation: Installation) -> _Self:
        """The step that the tags of `ck install` ask for."""

    @abc.abstractmethod
    def prepare(self, installation: Installation) -> dict[str, str]:
        """Resolve what CK cannot, and name the folder. Returns values for the package's steps."""

    def _install(
        self,
        tags: Collection[str],
        environment: Mapping[str, str],
        pinned: Mapping[str, str] | None = None,
    ) -> Entry:
        token = _handed_over.set(self)
        try:
            package = self.catalog.load_package(self.package)
            return self.catalog.install(package, tags, environment, pinned)
        finally:
            _handed_over.reset(token)
