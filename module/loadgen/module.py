"""This repository's own CK commands, `ck VERB loadgen`. They are in src/ck_mlperf/commands."""

import os
import sys
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.commands import through_ck

cfg: dict[str, Any] = {}  # CK puts the module's meta.json here,
work: dict[str, Any] = {}  # its own notes here,
ck: Any = None  # and its kernel here


def init(i: dict[str, Any]) -> dict[str, Any]:
    """Called when CK has loaded this file, before it looks at --help."""
    through_ck.answer_help(sys.argv[1:])
    return {"return": 0}


def run_verb(i: dict[str, Any]) -> dict[str, Any]:
    """Any `ck VERB loadgen`, also of a verb that there is not: it is meta.json's default action."""
    through_ck.run_request(i)


# The actions that meta.json declares, for `ck help loadgen`.
explore = analyze = compare = report = serve = submit = why = doctor = run_verb
