"""Our own check of a tree finds what the official checker complains of."""

from __future__ import annotations

import json

import pytest

from ck_mlperf.submission.check import check_tree
from ck_mlperf.submission.complaints import KINDS, Complaint

from ..builders.broken_trees import BROKEN
from .record_checker import SAID, ask

OFFICIAL = json.loads(SAID.read_text())["trees"]


def test_every_tree_was_given_to_the_official_checker():
    assert OFFICIAL.keys() == BROKEN.keys()
    refused = [name for name, said in OFFICIAL.items() if not said["passed"]]
    assert len(refused) >= 40
    assert all(OFFICIAL[name]["complaints"] for name in refused)


@pytest.mark.parametrize("name", BROKEN)
def test_what_the_official_checker_says_is_found(trees, name):
    found = check_tree(trees.make(name))
    for said in OFFICIAL[name]["complaints"]:
        complaint = Complaint(*said)
        assert any(own.says_what(complaint) for own in found), complaint
    assert any(own.fails for own in found) == (not OFFICIAL[name]["passed"])
    for own in found:
        what, advice = own.describe().split("\n  -> ")
        assert what.startswith(own.where)
        assert advice
        assert "{" not in what


@pytest.mark.slow
def test_the_official_checker_still_says_so(inference, trees):
    assert {name: ask(inference, trees, name) for name in BROKEN} == OFFICIAL


def test_the_table_has_every_kind():
    """But those that are ours alone."""
    seen = {complaint[0] for said in OFFICIAL.values() for complaint in said["complaints"]}
    missing = {name for name, kind in KINDS.items() if not kind.is_ours} - seen
    assert missing == set()


def test_what_the_official_checker_overlooks(tree, tmp_path):
    tree.set("Offline/performance/run_1/mlperf_log_detail.txt", "result_validity", "INVALID")
    (invalid,) = check_tree(tree.root)
    assert invalid.kind == "invalid"
    assert invalid.fails
    (tree.results / "bert-99").mkdir()
    (tree.at("Offline/performance/power")).mkdir()
    others = [one for one in check_tree(tree.root) if one.kind == "not-checked"]
    assert [(one.subject, one.fails) for one in others] == [("bert-99", False), ("power", False)]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert [one.kind for one in check_tree(empty)] == ["empty"]
    assert [one.kind for one in check_tree(tmp_path / "none")] == ["empty"]


def test_a_complaint_at_a_wider_place():
    own = Complaint("field-missing", "open/Acme/results/A", "status", "more")
    assert own.says_what(Complaint("field-missing", "open/Acme", ""))
    assert own.says_what(Complaint("field-missing", "", "status"))
    assert not own.says_what(Complaint("field-missing", "open/Ac", ""))
    assert not own.says_what(Complaint("field-missing", "open/Acme", "cooling"))
    assert not own.says_what(Complaint("field-empty", "open/Acme", "status"))
