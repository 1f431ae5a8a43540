"""Find what a set of CK tags asks for, or install it; refuse to choose among several.

CK's own resolution asks on the terminal which of several entries to take, and ends in a traceback
where there is no terminal.
"""

import os

from ck_mlperf.catalog import kernel


def split_tags(tags):
    return {tag.strip() for tag in tags.split(",") if tag.strip()}


def join_tags(tags):
    return ",".join(sorted(tags))


def entry_tags(entry):
    return set(entry["meta"]["tags"])


def entry_path(entry):
    """The file or folder that an env entry stands for."""
    return entry["meta"]["customize"]["full_path"]


def find_entries(ck, tags, refused=frozenset()):
    """The env entries with all the tags and none of the refused ones."""
    found = ck.access(dict(action="search", module_uoa="env", tags=join_tags(tags), add_meta="yes"))
    # CK tags what it has not finished installing `tmp`.
    return [e for e in found["lst"] if not entry_tags(e) & (set(refused) | {"tmp"})]


def find_registered(ck, key, dep, tags, refused=frozenset()):
    """The env entry with all the tags, or the one that --deps.KEY=UID names; None without one."""
    if dep.get("uoa"):
        return load_pinned(ck, key, dep["uoa"])
    entries = find_entries(ck, tags, refused)
    if len(entries) > 1:
        fail_ambiguous(key, tags, entries)
    return entries[0] if entries else None


def load_pinned(ck, key, uid):
    """The env entry that --deps.KEY=UID names."""
    entry = load_entry(ck, uid)
    if entry is None:
        kernel.fail(f"--deps.{key}={uid}: CK has no such entry; see `ck show env`")
    return entry


def load_entry(ck, uid):
    """An env entry by its UID; None where CK has forgotten it."""
    entry = ck.access(dict(action="load", module_uoa="env", data_uoa=uid))
    return None if entry["return"] else dict(entry, meta=entry["dict"])


def find_packages(ck, tags):
    found = ck.access(
        dict(
            action="search_in_variations",
            module_uoa="misc",
            query_module_uoa="package",
            data_uoa="",
            tags=join_tags(tags),
            add_info="yes",
        )
    )
    return found["lst"]


def load_package(ck, name):
    """A package of this repository."""
    found = ck.access(dict(action="load", module_uoa="package", data_uoa=name))
    if found["return"]:
        kernel.fail(found["error"])
    return dict(found, meta=found["dict"])


def install(ck, package, tags, environment=None, pinned=None):
    """Install a package; tags that it does not know become tags of what it installs.

    pinned: {dep: UID of the env entry to take}. Returns the new env entry.
    """
    meta = package["meta"]
    known = set(meta["tags"]) | set(meta.get("variations", {}))
    installed = ck.access(
        dict(
            action="install",
            module_uoa="package",
            data_uoa=package["data_uid"],
            tags=join_tags(tags & known),
            extra_tags=join_tags(tags - known),
            env=environment or {},
            preset_deps=pinned or {},
            quiet="yes",
            out="con",
        )
    )
    if installed["return"]:
        kernel.fail(f"{package['data_uoa']} was not installed: {installed['error']}")
    return load_entry(ck, installed["env_data_uid"])


def take(dep, entry, tags):
    dep["tags"] = join_tags(tags)
    dep["uoa"] = entry["data_uid"]
    dep["dict"] = entry["meta"]
    path = kernel.dep_path(dep)
    if not os.path.exists(path):
        kernel.fail(
            f"{path} is registered with CK and gone: `ck rm env:{dep['uoa']} --force` forgets it, "
            "and the next run installs it again"
        )


def resolve_library(ck, dep, tags):
    """Let CK resolve a dep on a Python library. Returns the lines of bash that set it up.

    CK tells what it does where it has to find or install it.
    """
    dep["tags"] = tags
    dep.pop("skipped", None)
    out = "" if find_entries(ck, split_tags(tags)) else "con"
    resolved = ck.access(
        dict(action="resolve", module_uoa="env", deps={"library": dep}, quiet="yes", out=out)
    )
    if resolved["return"]:
        kernel.fail(resolved["error"])
    return resolved["bat"]


def fail_ambiguous(key, tags, entries, advice=None):
    """End the command with what tells the entries apart, and how to say which is meant."""
    common = set.intersection(*(entry_tags(entry) for entry in entries))
    lines = [f"more than one thing registered with CK has the tags {join_tags(tags)}:"]
    for entry in entries:
        own = join_tags(entry_tags(entry) - common)
        lines.append(f"  --deps.{key}={entry['data_uid']}   {own}   ({entry_path(entry)})")
    lines.append(
        advice
        or "Say which: add the first word of one of these lines, or "
        f"--dep_add_tags.{key}=TAG with a tag that only one has"
    )
    kernel.fail("\n".join(lines))
