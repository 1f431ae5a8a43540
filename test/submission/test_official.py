"""What the official checker prints is read, and explained."""

from __future__ import annotations

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.submission.complaints import Complaint
from ck_mlperf.submission.official import read_output, run_checker

PLACE = "closed/Acme/results/H100.x2/resnet50/Offline"
TREE = f"/tmp/tree/{PLACE}"
HEAD = "[2026-08-20 10:00:00,000 check.py:1 {}] "


def make_output(*lines):
    """Lines as the checker logs them: each after its level and a colon."""
    return "\n".join(HEAD.format(line.partition(":")[0]) + line.partition(":")[2] for line in lines)


@pytest.mark.parametrize(
    ("lines", "complaints"),
    [
        ([f"INFO:Starting performance checks for: {TREE}/performance/run_1/log.txt"], []),
        (
            [f"ERROR:{TREE}/performance/run_1/log.txt qsl_rng_seed is wrong, expected=1, found=2"],
            [("seed", PLACE, "qsl_rng_seed")],
        ),
        (
            [
                f"INFO:Starting performance checks for: {TREE}/TEST01",
                "ERROR:Early stopping condition was not met, msg=\n * Only 5",
            ],
            [("early-stopping", f"{PLACE}/TEST01", "")],
        ),
        (
            ["ERROR:/tmp/tree/closed/Acme/results/H100.x2, field cooling is missing"] * 2,
            [("field-missing", "closed/Acme/results/H100.x2", "cooling")],
        ),
        (
            [
                f"ERROR:{TREE}/accuracy/log.txt contains errors:",
                "ERROR:Query is missing, field cooling is missing",
                "ERROR:anything",
                f"ERROR:{TREE}/accuracy/log.txt has loadgen errors, number of errors: 2",
            ],
            [("log-errors", PLACE, "")],
        ),
        (
            [
                f"INFO:Starting accuracy checks for: {TREE}/accuracy/log.txt",
                f"ERROR:Some accuracy checks Checks failed for: {TREE}/accuracy/log.txt",
            ],
            [("accuracy-not-found", PLACE, "")],
        ),
        (
            [
                f"INFO:Starting compliance check for: {TREE}/",
                f"INFO:Starting performance checks for: {TREE}/TEST04",
                f"ERROR:{TREE}/TEST04 Test duration less than 600s in user config. found=1",
                f"ERROR:Some performance checks Checks failed for: {TREE}/TEST04",
                f"ERROR:Some compliance check Checks failed for: {TREE}/",
                f"ERROR:NoResults {TREE}/performance/run_1/log.txt",
                "ERROR:SUMMARY: submission has errors",
            ],
            [("duration", f"{PLACE}/TEST04", "")],
        ),
        (
            [
                f"ERROR:Missing TEST01 in compliance dir {TREE}/",
                f"ERROR:Missing accuracy file in compliance dir. Needs file {TREE}/TEST01/a.txt",
            ],
            [("test-missing", f"{PLACE}/TEST01", "TEST01")],
        ),
    ],
)
def test_complaints(lines, complaints):
    found, unknown = read_output(make_output(*lines))
    assert unknown == []
    assert [tuple(one[:3]) for one in found] == complaints


def test_a_traceback():
    output = make_output(f"INFO:Loading Test log from {TREE}/TEST09/verify_output_len.txt") + (
        '\nTraceback (most recent call last):\n  File "performance_check.py", line 55, in __init__'
        "\n    self.scenario = ...\nTypeError: 'NoneType' object is not subscriptable\n"
    )
    assert read_output(output) == ([Complaint("log-missing", PLACE)], [])
    other = output.replace("TypeError: 'NoneType' object is not subscriptable", "KeyError: 'a'")
    assert read_output(other) == ([], ["ended in __init__: KeyError: 'a'"])


def test_lines_of_another_version_are_not_lost():
    _, unknown = read_output(make_output("ERROR:the moon is in the wrong phase", "INFO:all well"))
    assert unknown == ["the moon is in the wrong phase"]


CHECKER = """\
import sys
if "--help" in sys.argv:
    print("usage: main.py [-h] --input INPUT [--version {v9.1,v10.0,v6.1}] [--csv CSV]")
else:
    print(sys.argv[1:], file=sys.stderr)
    sys.exit(1)
"""


def make_checkout(folder, code):
    path = folder / "tools" / "submission" / "submission_checker" / "main.py"
    path.parent.mkdir(parents=True)
    path.write_text(code)
    return folder


def test_the_newest_version_of_the_checkout_is_asked(tmp_path):
    said = run_checker(make_checkout(tmp_path / "inference", CHECKER), tmp_path)
    assert (said.passed, said.version, said.complaints) == (False, "v10.0", [])
    assert f"--input={tmp_path}" in said.output
    assert "--version=v10.0" in said.output


def test_what_is_no_checkout(tmp_path):
    with pytest.raises(UserError, match="git clone https://github"):
        run_checker(tmp_path, tmp_path)
    broken = make_checkout(tmp_path / "inference", "import no_such_module")
    with pytest.raises(UserError, match="No module named 'no_such_module'"):
        run_checker(broken, tmp_path)
