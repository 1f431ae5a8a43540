"""What this repository's CK hooks share."""

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
REPOSITORY = SOURCE.parent


def fail(message, code=2):
    """End the `ck` command. CK itself prints errors on stdout and often exits with 0."""
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


def make_writes_whole():
    """Let CK's writes of this process be whole or not there.

    CK truncates a file and writes it anew. Killed in between, it leaves an experiment that it
    cannot read any more, and to which nothing can be added.
    """
    import ck.files

    plain = ck.files.save_text_file
    if plain.__name__ == "save_whole":
        return

    def save_whole(i):
        if i.get("append") == "yes":
            return plain(i)
        folder, name = os.path.split(i["text_file"])
        temporary = os.path.join(folder, f".{name}.{os.getpid()}")
        saved = plain(dict(i, text_file=temporary))
        if saved["return"]:
            return saved
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, i["text_file"])
        return saved

    ck.files.save_text_file = save_whole


def remove_half_made_experiments(repository):
    """Remove what a recording left that was killed before its entry had a description.

    There is no point in such an entry, and CK refuses to add one, after the next run is done.
    """
    experiments = os.path.join(repository, "experiment")
    if find_half_made(experiments):
        time.sleep(0.2)  # another process may be making one at this moment
        for name in find_half_made(experiments):
            print(
                f"removing the empty experiment {name}: its recording was killed", file=sys.stderr
            )
            shutil.rmtree(os.path.join(experiments, name))
            alias = os.path.join(experiments, ".cm", f"alias-a-{name}")
            if os.path.exists(alias):
                with open(alias) as file:
                    uid = file.read().strip()
                for stale in (alias, os.path.join(experiments, ".cm", f"alias-u-{uid}")):
                    if os.path.exists(stale):
                        os.remove(stale)


def find_half_made(experiments):
    """Entries without a description and without a point."""
    if not os.path.isdir(experiments):
        return []
    return [
        name
        for name in os.listdir(experiments)
        if name != ".cm"
        and not os.path.exists(os.path.join(experiments, name, ".cm", "meta.json"))
        and not any(f.startswith("ckp-") for f in os.listdir(os.path.join(experiments, name)))
    ]


def dep_path(dep):
    """The file or folder that a resolved dep stands for."""
    return dep["dict"]["customize"]["full_path"]


def dep_python(deps):
    """The interpreter of the `python` dep, and an environment in which it finds the other deps."""
    resolved = [dep["dict"] for dep in deps.values() if dep.get("dict")]
    sites = [meta["customize"].get("python_site") for meta in resolved]
    sites.append(os.environ.get("PYTHONPATH"))
    path = os.pathsep.join(site for site in sites if site)
    return dep_path(deps["python"]), dict(os.environ, PYTHONPATH=path)


def name_version(path, content):
    """A version for something that has none. CK takes two things of one version for the same."""
    return hashlib.sha256(json.dumps([path, content]).encode()).hexdigest()[:12]


def forget_registration(ck, soft_uoa, path):
    """Remove the env entries of a soft entry that stand for `path`.

    CK asks on the terminal before it registers a thing again, and fails where there is none.
    """
    found = ck.access({"action": "load", "module_uoa": "soft", "data_uoa": soft_uoa})
    if found["return"]:
        return
    listed = ck.access(
        {
            "action": "search",
            "module_uoa": "env",
            "add_meta": "yes",
            "search_dict": {"soft_uoa": found["data_uid"], "customize": {"full_path": path}},
        }
    )
    for entry in listed.get("lst", []):
        ck.access(
            {"action": "delete", "module_uoa": "env", "data_uoa": entry["data_uid"], "force": "yes"}
        )
