"""CK's requests as command lines. test/module has them with the real CK."""

from __future__ import annotations

import sys

import pytest

from ck_mlperf.commands.through_ck import answer_help, load_catalog, read_words
from ck_mlperf.common.errors import UserError


def test_a_request_as_a_command_line():
    request = {
        "action": "analyze",
        "cid": "loadgen",
        "module_uoa": "loadgen",
        "out": "con",
        "cids": ["explore.*", "mine"],
        "xcids": [{"return": 0}, {"return": 0}],
        "query": "SELECT 1",
        "json": "yes",
        "env.CK_VERBOSE": "yes",
    }
    assert read_words(request) == [
        *("analyze", "explore.*", "mine"),
        *("--env.CK_VERBOSE=yes", "--json=yes", "--query=SELECT 1"),
    ]
    assert read_words({"action": "why"}) == ["why"]


@pytest.mark.parametrize("option", ["--help", "-help", "-h", "--help=yes"])
def test_help(option, capsys):
    with pytest.raises(SystemExit, match="0"):
        answer_help(["serve", "loadgen", "--port=1", option])
    assert capsys.readouterr().out.startswith("usage: ck serve loadgen ")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["serve"],
        ["serve", "loadgen"],
        ["run", "program:x", "--help"],
        ["help", "loadgen"],
        ["serve", "loadgen", "--name=--help"],
    ],
)
def test_what_is_left_to_ck(words, capsys):
    answer_help(words)
    assert capsys.readouterr() == ("", "")


def test_without_ck_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "ck", None)
    with pytest.raises(UserError, match=r"pip install ck==2\.6\.4.*`ck VERB loadgen`"):
        load_catalog()
