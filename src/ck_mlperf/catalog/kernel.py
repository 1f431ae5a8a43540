"""The border with CK's kernel: its dictionaries go in and out as typed values.

CK's own resolution asks on the terminal which of several entries to take, and ends in a traceback
where there is no terminal. `Catalog` looks things up and installs them without asking, and refuses
to choose among several.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Protocol, TypeVar

from ck_mlperf.common.errors import UserError, describe_os_error, is_of_machine
from ck_mlperf.common.shell import PLAIN_RULE, is_plain
from ck_mlperf.common.tags import join_tags, split_tags

SOURCE = Path(__file__).resolve().parents[2]
REPOSITORY = SOURCE.parent

Request = dict[str, Any]
"""What CK hands to a hook, and what its kernel takes and answers."""
Result = TypeVar("Result")
_INTERRUPTED, _PIPE_CLOSED = 128 + 2, 128 + 13  # as the shell says of SIGINT and SIGPIPE


class Kernel(Protocol):
    """CK's kernel, as far as it is used here. work: its own notes."""

    work: dict[str, Any]
    __file__: str

    def access(self, i: Request) -> Request: ...


def fail(message: object, code: int = 2) -> NoReturn:
    """End the `ck` command. CK itself prints errors on stdout and often exits with 0."""
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


def read_command_line(arguments: Sequence[str]) -> dict[str, str]:
    """{option: value} of a `ck` command line, as CK reads it; {} of another program."""
    if os.path.basename(arguments[0]) != "ck":
        return {}
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return dict(
        word.lstrip("-").partition("=")[::2]
        for word in own[2:]
        if (word.startswith("-") or "=" in word) and not word.startswith("@")
    )


def hook(function: Callable[[Request], Result]) -> Callable[[Request], Result]:
    """A function that CK calls: a UserError ends the `ck` command with its message, status 2.

    So does Ctrl-C, with status 130; in CK's own code, too, once a hook was called.
    """

    @functools.wraps(function)
    def call(i: Request) -> Result:
        sys.excepthook = _end_without_traceback
        try:
            _check_path(i)
            return function(i)
        except UserError as error:
            fail(error)
        except KeyboardInterrupt:
            fail("interrupted", code=_INTERRUPTED)

    return call


def _end_without_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Ctrl-C, a pipe that was closed (`ck run ... | head`) and a full disk are no bugs of CK's."""
    if issubclass(kind, KeyboardInterrupt):
        fail("interrupted", code=_INTERRUPTED)
    if issubclass(kind, BrokenPipeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # the interpreter flushes it at its end
        raise SystemExit(_PIPE_CLOSED)
    if isinstance(error, OSError) and is_of_machine(error):
        where = "" if error.filename else "CK cannot write below CK_REPOS or CK_TOOLS: "
        fail(f"{where}{describe_os_error(error)}")
    sys.__excepthook__(kind, error, trace)


def _check_path(i: Request) -> None:
    """Raise UserError for a path that the scripts that CK writes it into would interpret."""
    for path in (i.get("full_path"), (i.get("customize") or {}).get("full_path")):
        if isinstance(path, str) and not is_plain(path):
            raise UserError(
                f"CK writes paths into scripts, and {path!r} has characters that mean something to "
                f"a shell: want {PLAIN_RULE}. Rename it, or make a link with a plain name"
            )


@dataclass(frozen=True)
class Entry:
    """An env entry: something that CK has installed, or that was registered with it."""

    uid: str
    meta: Mapping[str, Any]

    @property
    def tags(self) -> frozenset[str]:
        return frozenset(self.meta["tags"])

    @property
    def customize(self) -> Mapping[str, Any]:
        """What its soft entry's hooks have noted."""
        customize: Mapping[str, Any] = self.meta["customize"]
        return customize

    @property
    def path(self) -> str:
        """The file or folder that it stands for."""
        return str(self.customize["full_path"])

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Of a model: its recipe, with the file's sha256."""
        recipe: Mapping[str, Any] = self.customize["recipe"]
        return recipe

    def dep_uid(self, key: str) -> str | None:
        """The UID of the entry that it was made from."""
        uid: str | None = self.meta["setup"].get(f"deps_{key}")
        return uid


@dataclass(frozen=True)
class Package:
    """A package of this repository or another."""

    uid: str
    name: str
    meta: Mapping[str, Any]

    @property
    def tags(self) -> frozenset[str]:
        return frozenset(self.meta["tags"])

    @property
    def known_tags(self) -> frozenset[str]:
        """The tags by which CK finds it: its own and its variations."""
        return self.tags | set(self.meta.get("variations", {}))


class Dep:
    """A dependency in CK's own dictionary, where it is filled in."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    @property
    def tags(self) -> set[str]:
        """The tags that it is asked for by, with those of --dep_add_tags."""
        return split_tags(self.data["tags"])

    @property
    def uid(self) -> str:
        """The entry that --deps.KEY=UID names, or that was taken; '' without one."""
        return str(self.data.get("uoa", ""))

    @property
    def entry(self) -> Entry | None:
        """What it was resolved to."""
        return Entry(self.uid, self.data["dict"]) if self.data.get("dict") else None

    @property
    def path(self) -> str:
        """The file or folder that it was resolved to."""
        return str(self.data["dict"]["customize"]["full_path"])

    def take(self, entry: Entry, tags: Collection[str]) -> None:
        """Resolve it to an entry. Raises UserError where that stands for nothing any more."""
        self.data.update(tags=join_tags(tags), uoa=entry.uid, dict=entry.meta)
        if not os.path.exists(entry.path):
            raise UserError(
                f"{entry.path} is registered with CK and gone: `ck rm env:{entry.uid} --force` "
                "forgets it, and the next run installs it again"
            )


def read_deps(data: Mapping[str, dict[str, Any]]) -> dict[str, Dep]:
    """The dependencies of a hook's request, by their keys."""
    return {key: Dep(dep) for key, dep in data.items()}


def dep_python(deps: Mapping[str, Dep]) -> tuple[str, dict[str, str]]:
    """The interpreter of the `python` dep, and an environment in which it finds the other deps."""
    entries = [dep.entry for dep in deps.values()]
    sites = [entry.customize.get("python_site") for entry in entries if entry]
    sites.append(os.environ.get("PYTHONPATH"))
    path = os.pathsep.join(site for site in sites if site)
    return deps["python"].path, dict(os.environ, PYTHONPATH=path)


class Catalog:
    """What CK has: looked up, or installed."""

    def __init__(self, ck: Kernel) -> None:
        self.ck = ck

    def find(self, tags: Collection[str], refused: Collection[str] = ()) -> list[Entry]:
        """The env entries with all the tags and none of the refused ones."""
        found = self._access(
            action="search", module_uoa="env", tags=join_tags(tags), add_meta="yes"
        )
        entries = [Entry(data["data_uid"], data["meta"]) for data in found["lst"]]
        # CK tags what it has not finished installing `tmp`.
        return [entry for entry in entries if entry.tags.isdisjoint({*refused, "tmp"})]

    def find_one(
        self, key: str, tags: Collection[str], refused: Collection[str] = (), pinned: str = ""
    ) -> Entry | None:
        """The env entry with all the tags, or the one that --deps.KEY=UID names (`pinned`).

        None without one. Raises UserError where there are several.
        """
        if pinned:
            return self.load_pinned(key, pinned)
        entries = self.find(tags, refused)
        if len(entries) > 1:
            raise UserError(describe_ambiguity(key, tags, entries))
        return entries[0] if entries else None

    def load(self, uid: str) -> Entry | None:
        """An env entry by its UID; None where CK has forgotten it."""
        found = self._access(action="load", module_uoa="env", data_uoa=uid)
        return None if found["return"] else Entry(found["data_uid"], found["dict"])

    def load_pinned(self, key: str, uid: str) -> Entry:
        """The env entry that --deps.KEY=UID names. Raises UserError without one."""
        entry = self.load(uid)
        if entry is None:
            raise UserError(f"--deps.{key}={uid}: CK has no such entry; see `ck show env`")
        return entry

    def read_sources(self, modules: Collection[str]) -> str:
        """The text of CK's kernel and of some of its modules."""
        paths = [Path(self.ck.__file__)]
        for name in modules:
            found = self._access(action="find", module_uoa="module", data_uoa=name)
            paths.append(Path(found["path"], "module.py"))
        return "\n".join(path.read_text(encoding="utf-8") for path in paths)

    def find_packages(self, tags: Collection[str]) -> list[Package]:
        """The packages that have all the tags, as their own or as variations."""
        found = self._access(
            action="search_in_variations",
            module_uoa="misc",
            query_module_uoa="package",
            data_uoa="",
            tags=join_tags(tags),
            add_info="yes",
        )
        return [Package(p["data_uid"], p["data_uoa"], p["meta"]) for p in found["lst"]]

    def list_dep_keys(self) -> set[str]:
        """The keys of all packages' dependencies."""
        found = self._access(action="search", module_uoa="package", add_meta="yes")
        return {key for package in found["lst"] for key in package["meta"].get("deps", {})}

    def load_package(self, name: str) -> Package:
        """A package of this repository."""
        found = self._access(action="load", module_uoa="package", data_uoa=name)
        if found["return"]:
            raise UserError(found["error"])
        return Package(found["data_uid"], found["data_uoa"], found["dict"])

    def install(
        self,
        package: Package,
        tags: Collection[str],
        environment: Mapping[str, str] | None = None,
        pinned: Mapping[str, str] | None = None,
    ) -> Entry:
        """Install a package; tags that it does not know become tags of what it installs.

        pinned: {dep: UID of the env entry to take}. Returns the new env entry.
        """
        wanted = set(tags)
        installed = self._access(
            action="install",
            module_uoa="package",
            data_uoa=package.uid,
            tags=join_tags(wanted & package.known_tags),
            extra_tags=join_tags(wanted - package.known_tags),
            env=dict(environment or {}),
            preset_deps=dict(pinned or {}),
            quiet="yes",
            out="con",
        )
        if installed["return"]:
            raise UserError(f"{package.name} was not installed: {installed['error']}")
        return self.load_pinned(package.name, installed["env_data_uid"])

    def resolve(self, dep: Dep, tags: str) -> str:
        """Let CK resolve a dep by its tags. Returns the lines of bash that set it up.

        CK tells what it does where it has to find or install it.
        """
        dep.data["tags"] = tags
        return self.resolve_all({"library": dep})

    def resolve_all(self, deps: Mapping[str, Dep]) -> str:
        """`resolve` deps by the tags that they have, each to fit those before it."""
        for dep in deps.values():
            dep.data.pop("skipped", None)
        is_there = all(self.find(dep.tags) for dep in deps.values())
        resolved = self._access(
            action="resolve",
            module_uoa="env",
            deps={key: dep.data for key, dep in deps.items()},
            quiet="yes",
            out="" if is_there else "con",
        )
        if resolved["return"]:
            raise UserError(resolved["error"])
        return str(resolved["bat"])

    def resolve_library(self, dep: Dep, tag: str) -> str:
        """`resolve` a dep on a Python library."""
        return self.resolve(dep, f"lib,python-package,{tag}")

    def update(self, entry: Entry) -> None:
        """Let CK keep what was changed in an env entry's meta."""
        updated = self._access(
            action="update",
            module_uoa="env",
            data_uoa=entry.uid,
            dict=entry.meta,
            substitute="yes",
            ignore_update="yes",
        )
        if updated["return"]:
            raise UserError(updated["error"])

    def forget(self, soft: str, path: str) -> None:
        """Remove the env entries of a soft entry that stand for `path`.

        CK asks on the terminal before it registers a thing again, and fails where there is none.
        """
        found = self._access(action="load", module_uoa="soft", data_uoa=soft)
        if found["return"]:
            return
        wanted = {"soft_uoa": found["data_uid"], "customize": {"full_path": path}}
        listed = self._access(action="search", module_uoa="env", add_meta="yes", search_dict=wanted)
        for entry in listed.get("lst", []):
            uid = entry["data_uid"]
            self._access(action="delete", module_uoa="env", data_uoa=uid, force="yes")

    def _access(self, **request: Any) -> Request:
        return self.ck.access(request)


def describe_ambiguity(
    key: str, tags: Collection[str], entries: Collection[Entry], advice: str = ""
) -> str:
    """What tells the entries apart, and how to say which is meant. key: of the dep."""
    common = frozenset.intersection(*(entry.tags for entry in entries))
    lines = [f"more than one thing registered with CK has the tags {join_tags(tags)}:"]
    for entry in entries:
        own = join_tags(entry.tags - common)
        lines.append(f"  --deps.{key}={entry.uid}   {own}   ({entry.path})")
    lines.append(
        advice
        or "Say which: add the first word of one of these lines, or "
        f"--dep_add_tags.{key}=TAG with a tag that only one has"
    )
    return "\n".join(lines)
