"""`ck-mlperf submit`."""

from __future__ import annotations

import pytest
import yaml

from ck_mlperf.common.errors import UserError

from ..builders.submission import SYSTEM, save_run, save_runs
from ..submission.test_official import CHECKER, make_checkout

OPEN = ("--division=open", "--submitter=Acme")


@pytest.fixture
def system(tmp_path):
    """--system, filled in."""
    path = tmp_path / "system.yaml"
    path.write_text(yaml.safe_dump(SYSTEM))
    return f"--system={path}"


@pytest.fixture
def tree(tmp_path):
    return tmp_path / "tree"


@pytest.fixture
def write(local, command, system, tree):
    """write("open", ...options, code=0): what the command prints of a tree of Offline."""
    save_runs(local, "some", ["Offline"], ["performance", "accuracy"])

    def run(*options, code=0):
        return command("submit", "some", *OPEN, system, f"--out_dir={tree}", *options, code=code)

    return run


def test_a_tree_is_written_and_checked(write, command, tree):
    assert write().splitlines() == [
        f"{tree}: open, Offline",
        f"{tree}: own check: no problems",
    ]
    assert command("submit", f"--out_dir={tree}") == f"{tree}: own check: no problems\n"
    assert command("submit", f"--out_dir={tree}", "--check=own")
    (readme,) = tree.glob("open/Acme/results/*/resnet50/Offline/README.md")
    readme.unlink()
    said = command("submit", f"--out_dir={tree}", code=1)
    assert "Offline: no README.md\n  -> Write the tree again" in said
    assert said.endswith("own check: 1 problem\n")


def test_labels_are_said(local, write):
    save_run(local / "experiment" / "some", "Offline", "accuracy", 1, reasons=["for a reason"])
    assert "labelled in the tree: for a reason" in write()


def test_a_tree_is_replaced_only_by_force(write, tree):
    write()
    with pytest.raises(UserError, match=r"exists already\. --force replaces it"):
        write()
    write("--force")
    (tree / "thesis.txt").touch()
    with pytest.raises(UserError, match="It is no tree of a submission"):
        write("--force")
    assert (tree / "thesis.txt").exists()


def test_the_official_checker_is_explained(write, tmp_path):
    place = "open/Acme/results/A/resnet50/Offline"
    line = "[2026-08-20 10:00:00,000 check.py:1 ERROR] "
    lines = [
        f"{line}/tree/{place}/accuracy/log.txt not hash value for accuracy.txt",
        f"{line}something new",
    ]
    code = CHECKER.replace("print(sys.argv[1:]", f"print({chr(10).join(lines)!r}")
    checkout = make_checkout(tmp_path / "inference", code)
    said = write(f"--check={checkout}", code=1)
    assert "the checker's newest version is v10.0; the tree is of v6.1\n" in said
    assert (
        f"{place}: accuracy.txt has no line hash=...\n  -> It must be the hash of the whole log"
        in said
    )
    assert "the checker: something new\n" in said
    assert said.endswith(
        "official checker, v10.0: submission has errors (1 complaint, all explained above)\n"
    )


@pytest.mark.slow
def test_the_official_checker_takes_the_tree(inference, write, tree):
    assert write(f"--check={inference}").endswith(
        f"{tree}: own check: no problems\n{tree}: official checker, v6.1: submission looks OK\n"
    )


def test_what_is_not_given(local, command):
    save_runs(local, "some", ["Offline"], ["performance"])
    with pytest.raises(UserError, match="--division, --submitter, --system: required"):
        command("submit", "some")
    with pytest.raises(UserError, match="name the experiments"):
        command("submit", *OPEN)
    with pytest.raises(UserError, match="no experiment has the name other"):
        command("submit", "other", *OPEN, "--system=none.yaml")
    with pytest.raises(UserError, match="want the name of a folder, no spaces"):
        command("submit", "some", "--division=open", "--submitter=A B", "--system=none.yaml")


def test_a_template_is_written_first(local, command, tmp_path):
    save_runs(local, "some", ["Offline"], ["performance", "accuracy"])
    path = tmp_path / "new.yaml"
    with pytest.raises(UserError, match="It is a template now"):
        command("submit", "some", *OPEN, f"--system={path}", f"--out_dir={tmp_path}/tree")
    assert "records of some" in path.read_text()
    assert not (tmp_path / "tree").exists()
