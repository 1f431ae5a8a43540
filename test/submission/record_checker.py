"""Records what the official submission checker says of the trees in builders/broken_trees.py.

python test/submission/record_checker.py PATH_TO_MLCOMMONS_INFERENCE COMMIT
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
SAID = TESTS / "data" / "submission" / "checker.json"


def ask(checkout: Path, trees: Any, name: str) -> dict[str, Any]:
    """What the checker says of a tree: whether it takes it, and [kind, where, subject] of each."""
    from ck_mlperf.submission.official import run_checker

    said = run_checker(checkout, trees.make(name))
    assert not said.unknown, said.unknown
    complaints = sorted(complaint[:3] for complaint in said.complaints)
    return {"passed": said.passed, "complaints": [list(complaint) for complaint in complaints]}


def truncate_officially(checkout: Path, root: Path) -> dict[str, str]:
    """The truncated logs and accuracy.txt that truncate_accuracy_log.py makes in a tree.

    root: with whole accuracy logs. Returns texts by path.
    """
    script = checkout / "tools" / "submission" / "truncate_accuracy_log.py"
    with tempfile.TemporaryDirectory() as temporary:
        backup = Path(temporary, "backup")
        command = [sys.executable, script, f"--input={root}", "--submitter=Acme"]
        subprocess.run([*command, f"--backup={backup}"], check=True, capture_output=True)
    files = [*root.rglob("mlperf_log_accuracy.json"), *root.rglob("accuracy.txt")]
    return {path.relative_to(root).as_posix(): path.read_text() for path in files}


def main() -> None:
    sys.path.insert(0, str(TESTS))
    from builders.broken_trees import BROKEN, Trees

    checkout = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as temporary:
        trees = Trees(Path(temporary))
        trees_said = {name: ask(checkout, trees, name) for name in BROKEN}
    said = {"commit": sys.argv[2], "trees": trees_said}
    text = json.dumps(said, indent=1)
    # a complaint a line
    for old, new in (("[\n     ", "["), (",\n     ", ", "), ("\n    ]", "]")):
        text = text.replace(old, new)
    SAID.write_text(text + "\n")


if __name__ == "__main__":
    main()
