"""Recordings of `ck benchmark` by the real CK, without a run; `test/program/` has some of runs."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from ck_mlperf.catalog import recording
from ck_mlperf.catalog.experiment_entry import OUR_LOCK, check_writable
from ck_mlperf.common.errors import UserError

from ..builders.forks import run_fork, start_fork

LONG = "mlperf.closed.image-classification.tensorrt.resnet.multistream.performance"
UID = "0123456789abcdef"
REFUSED = 2


def benchmark(*flags: str) -> list[str]:
    return ["/bin/ck", "benchmark", "program:image-classification-tensorrt-loadgen-py", *flags]


def record(repos: Path, name: str, kill_at: int = 0) -> None:
    """What a `ck benchmark` does with CK, but for the run."""
    for variable in ("CK_LOCAL_REPO", "CK_ROOT", "CK_CFG"):
        os.environ.pop(variable, None)
    os.environ |= {"CK_REPOS": str(repos), "KILL_FOLDER": str(repos), "KILL_AT": str(kill_at)}
    warnings.simplefilter("ignore")  # CK is older than the Pythons that it is run by
    import ck.kernel as ck

    ck.access({"action": "find", "module_uoa": "module", "data_uoa": "experiment"})
    importlib.import_module("test.fakes.in_ck.sitecustomize")
    recording.prepare_writes(ck)
    try:
        flags = ["--record", "--record_repo=local", f"--record_uoa={name}"]
        recording.prepare_recording(ck, benchmark(*flags))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
    point = {"characteristics_list": [{"run": {"a": 1}}], "tags": ["x"]}
    wanted = {"module_uoa": "bc0409fb61f0aa82", "repo_uoa": "local", "experiment_uoa": name}
    options = {"skip_stat_analysis": "yes", "record_all_subpoints": "yes"}
    done = ck.access({"action": "add", **wanted, **options, "dict": point})
    if done["return"]:
        sys.exit(done["error"])


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    """Where CK's local repository, which is new, has or will have its experiments."""
    assert run_fork(record, tmp_path, "first") == 0
    return tmp_path / "local" / "experiment"


def count_points(entry: Path) -> int:
    return len(list(entry.glob("ckp-*.0001.json")))


def list_tree(folder: Path) -> set[str]:
    """All that is in it, and what its links lead to."""
    paths = [path for top in folder.iterdir() for path in (top, *top.rglob("*"), *top.glob("*"))]
    read = {path: path.read_bytes() for path in paths if path.is_file()}
    return {f"{path} {read.get(path)!r}" for path in paths if path.name != ".record.lock"}


@pytest.mark.parametrize(
    "flags",
    [["--record"], ["record=yes", "record_uoa=a/b"], ["--record", "--record_uoa=sweep,1"]]
    + [
        ["--record=yes", f"--record_uoa={name}"]
        for name in ("", ".", "..", ".x", "-x", "@x", "local:x", "local:experiment:x", "n" * 201,
                     "n" * 300, "a b", "it's", "a\n", "é")
    ],
)  # fmt: skip
def test_a_recording_without_a_name_that_can_be_written_is_refused(flags):
    with pytest.raises(UserError, match="--record_uoa=NAME"):
        recording.prepare_recording(None, benchmark(*flags))


def test_a_repository_in_the_flag_is_refused():
    with pytest.raises(UserError, match="--record_repo=NAME"):
        recording.prepare_recording(None, benchmark("--record=local:experiment:yes"))


@pytest.mark.parametrize(
    "arguments",
    [
        benchmark("--record_uoa=unused/name"),
        benchmark("--record=no", "--record_uoa=.."),
        ["/bin/ck", "run", "program:x", "--record"],
        ["script.py"],
    ],
)
def test_other_commands_do_not_look_at_experiments(arguments):
    recording.prepare_recording(None, arguments)


@pytest.mark.parametrize("name", [LONG, "n" * 200, "_1.a@b-c", UID])
def test_names_that_ck_can_write(experiments, name):
    for points in (1, 2):
        assert run_fork(record, experiments.parents[1], name) == 0
        assert count_points(experiments / name) == points


@pytest.mark.slow
def test_a_kill_at_any_change_of_a_first_recording_leaves_the_name_usable(experiments, capfd):
    repos, local = experiments.parents[1], experiments.parent
    shutil.rmtree(experiments)
    (local / ".cm" / "alias-a-experiment").unlink()
    empty = repos / "empty"
    shutil.copytree(local, empty)
    locks = 0
    for at in range(1, 100):
        shutil.rmtree(local)
        shutil.copytree(empty, local)
        entry = experiments / "killed"
        ended = run_fork(record, repos, "killed", at)
        points = count_points(entry)
        locks += (entry / ".cm" / "ck_lock.txt").exists()
        assert run_fork(record, repos, "killed") == 0
        assert count_points(entry) == points + 1
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    assert at > 20
    assert locks > 5
    assert "waiting" not in capfd.readouterr().err  # for a dead process


@pytest.mark.slow
def test_a_kill_at_any_change_of_a_later_recording_leaves_the_name_usable(experiments, capfd):
    repos, entry = experiments.parents[1], experiments / "first"
    kills = 0
    while run_fork(record, repos, "first", kills + 1) == -signal.SIGKILL:
        kills += 1
    assert kills > 15
    assert run_fork(record, repos, "first") == 0
    assert count_points(entry) > 2
    assert not (entry / ".cm" / "ck_lock.txt").exists()
    assert "waiting" not in capfd.readouterr().err


def test_a_folder_that_the_user_made_before_ck_did(experiments):
    shutil.rmtree(experiments)
    for alias in (experiments.parent / ".cm").iterdir():
        alias.unlink()
    make_notes(experiments)
    assert run_fork(record, experiments.parents[1], "x") == 0
    assert count_points(experiments / "x") == 1
    assert (experiments / "precious.txt").exists()


@pytest.mark.parametrize("uid", [f"{UID}\n", ""])
@pytest.mark.parametrize("folder", [[], [""], ["", ".cm"], ["", ".cm", ".cm/meta.json"]])
def test_what_a_killed_addition_left_is_removed(experiments, uid, folder, capfd):
    """Also by a `ck` without our hooks, which truncates a file before it writes it."""
    entry = experiments / "x"
    (experiments / ".cm" / "alias-a-x").write_text(uid)
    (experiments / ".cm" / f"alias-u-{UID}").write_text("x\n")
    for name in folder:
        path = entry / name
        if path.suffix:
            path.write_text("{")
        else:
            path.mkdir()
    assert run_fork(record, experiments.parents[1], "x") == 0
    assert "removing the empty experiment x" in capfd.readouterr().err
    assert count_points(entry) == 1


def make_notes(entry: Path) -> None:
    entry.mkdir()
    (entry / "precious.txt").write_text("mine")


def make_undescribed(entry: Path) -> None:
    """An entry of CK's whose meta is damaged, with a file of the user's."""
    make_notes(entry)
    (entry / ".cm").mkdir()
    (entry / ".cm" / "meta.json").write_text("{")
    (entry.parent / ".cm" / f"alias-a-{entry.name}").write_text(f"{UID}\n")


def make_with_file_in_cm(entry: Path) -> None:
    make_undescribed(entry)
    (entry / "precious.txt").rename(entry / ".cm" / "precious.txt")


def make_blocked(entry: Path) -> None:
    """An alias that is no file."""
    (entry.parent / ".cm" / f"alias-a-{entry.name}").mkdir()


def make_link(entry: Path) -> None:
    folder = entry.parent.parent / "elsewhere"
    make_notes(folder)
    entry.symlink_to(folder)
    (entry.parent / ".cm" / f"alias-a-{entry.name}").write_text(f"{UID}\n")


def make_of_another_pipeline(entry: Path) -> None:
    assert run_fork(record, entry.parents[2], entry.name) == 0
    (entry / ".cm" / "meta.json").write_text('{"pipeline_uid": "1dc07ee0f4742028"}')


@pytest.mark.parametrize(
    "make",
    [
        make_notes,
        make_undescribed,
        make_with_file_in_cm,
        make_blocked,
        make_link,
        make_of_another_pipeline,
        Path.mkdir,
        Path.touch,
        lambda entry: entry.symlink_to("/nowhere"),
    ],
)
def test_what_is_not_cks_own_is_refused_and_left_alone(experiments, make: Callable, capfd):
    entry = experiments / "x"
    make(entry)
    before = list_tree(experiments)
    repos = experiments.parents[1]
    assert run_fork(record, repos, "x") == REFUSED
    assert "cannot record into the experiment x" in capfd.readouterr().err
    assert list_tree(experiments) == before
    # Nobody else is disturbed.
    assert run_fork(record, repos, "another") == 0


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, experiments, capfd):
    # Not even root writes there.
    with pytest.raises(UserError, match="/proc/self cannot be written"):
        check_writable(Path("/proc/self/x"))
    # As of a volume that is not there.
    experiments.rename(tmp_path / "moved")
    experiments.symlink_to(tmp_path / "unmounted")
    assert run_fork(record, tmp_path, "x") == REFUSED
    assert f"cannot record into the experiment x: {experiments}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("lock", "age_s", "says"),
    [
        (f"{UID}\n120\n{OUR_LOCK}\n", 0, False),  # its process is dead
        ("", 5, False),
        (f"{UID}\n120\n", 121, False),
        (f"{UID}\n3\n", 0, True),  # of a program that may be alive
    ],
)
def test_locks_of_others(experiments, lock, age_s, says, capfd):
    path = experiments / "first" / ".cm" / "ck_lock.txt"
    path.write_text(lock)
    then = time.time() - age_s
    os.utime(path, (then, then))
    assert run_fork(record, experiments.parents[1], "first") == 0
    assert count_points(experiments / "first") == 2
    assert not path.exists()
    assert ("another program that records" in capfd.readouterr().err) == says


def test_first_recordings_at_the_same_time(experiments):
    processes = [start_fork(record, experiments.parents[1], "shared") for _ in range(4)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert count_points(experiments / "shared") == 4
