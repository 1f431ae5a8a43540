"""Two runs in a CK home in which nothing is registered yet."""

import collections
import json
import subprocess
from pathlib import Path

PROGRAM = "program:image-classification-tensorrt-loadgen-py"


def list_entries(repos: Path) -> list[tuple[str, tuple[str, ...]]]:
    """(path, tags) of all that is registered."""
    metas = [json.loads(path.read_text()) for path in repos.glob("local/env/*/.cm/meta.json")]
    return [(meta["customize"]["full_path"], tuple(sorted(meta["tags"]))) for meta in metas]


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
    entries = list_entries(Path(own_ck.environment["CK_REPOS"]))
    assert [entry for entry, n in collections.Counter(entries).items() if n > 1] == []
    assert "accuracy=99.200%" in own_ck("run", PROGRAM, "--skip_print_timers").stdout
