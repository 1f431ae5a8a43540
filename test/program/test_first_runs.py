"""Two runs in a CK home in which nothing is registered yet, and one where things are twice."""

import json
import shutil
import subprocess
from pathlib import Path

PROGRAM = "program:image-classification-tensorrt-loadgen-py"


def list_entries(repos: Path) -> list[tuple[str, tuple[str, ...]]]:
    """(path, tags) of all that is registered."""
    metas = [json.loads(path.read_text()) for path in repos.glob("local/env/*/.cm/meta.json")]
    return [(meta["customize"]["full_path"], tuple(sorted(meta["tags"]))) for meta in metas]


def register_twice(repos: Path, tags: set[str]) -> None:
    """What has one of the tags, as two runs at once left it before there was a lock."""
    for n, meta in enumerate(sorted(repos.glob("local/env/*/.cm/meta.json")), 1):
        if tags.intersection(json.loads(meta.read_text())["tags"]):
            entry, uid = meta.parents[1], f"{n:016x}"
            shutil.copytree(entry, entry.with_name(uid))
            for name in (".cm/meta.json", ".cm/info.json", "env.sh"):
                file = entry.with_name(uid) / name
                file.write_text(file.read_text().replace(entry.name, uid))


def test_two_first_runs_at_once_register_each_thing_once(own_ck):
    processes = [
        subprocess.Popen(
            ["ck", "run", PROGRAM, "--skip_print_timers", f"--tmp_dir=tmp-{name}"],
            env=own_ck.environment,
            cwd=own_ck.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    waited = 0
    for process in processes:
        out, err = process.communicate()
        assert process.returncode == 0, out[-3000:] + err[-3000:]
        assert "accuracy=99.200%" in out
        waited += err.count("installs or registers something in")
    assert waited
    repos = Path(own_ck.environment["CK_REPOS"])
    entries = list_entries(repos)
    assert len(entries) == len(set(entries))
    register_twice(repos, {"lang-python", "numpy", "digits"})
    assert len(list_entries(repos)) > len(entries)
    assert "accuracy=99.200%" in own_ck("run", PROGRAM, "--skip_print_timers").stdout
    assert sorted(list_entries(repos)) == sorted(entries)
