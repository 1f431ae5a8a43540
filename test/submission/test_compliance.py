"""Our verification of compliance tests says what the official scripts say of the same logs."""

import json

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.submission.compliance import run_official, verify

from .compliance_cases import OFFICIAL, describe, list_cases, read_logs

OUTCOMES = json.loads(OFFICIAL.read_text())["outcomes"]
CASES = dict(list_cases())


def test_every_case_was_given_to_the_official_scripts():
    assert OUTCOMES.keys() == CASES.keys()
    assert len(CASES) > 200
    for part in ("accuracy", "performance"):
        assert {outcome[part] for outcome in OUTCOMES.values()} >= {True, False}


@pytest.mark.parametrize("name", CASES)
def test_the_official_scripts_say_the_same(name):
    verification = verify(*CASES[name])
    assert describe(verification) == OUTCOMES[name]
    assert verification.passed == (False not in OUTCOMES[name].values())
    assert bool(verification.reasons) != verification.passed


def test_the_files_of_a_submission():
    reference = read_logs("Offline", "reference")
    run = read_logs("Offline", "TEST01")
    files = verify("TEST01", reference, run).files
    assert set(files) == {
        "verify_accuracy.txt",
        "verify_performance.txt",
        "accuracy/mlperf_log_accuracy.json",
        "performance/run_1/mlperf_log_detail.txt",
        "performance/run_1/mlperf_log_summary.txt",
    }
    assert files["performance/run_1/mlperf_log_detail.txt"].encode() == run.detail
    assert files["accuracy/mlperf_log_accuracy.json"].encode() == run.accuracy
    assert "TEST PASS\n" in files["verify_accuracy.txt"]
    assert set(files) - {"verify_accuracy.txt", "accuracy/mlperf_log_accuracy.json"} == set(
        verify("TEST04", reference, run).files
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("TEST01 Offline: one answer differs", "TEST01: 2 of 4169 answers differ from the accur"),
        ("TEST01 Server: 1e+06 to 1.3", "TEST01: the score is 1.3e+06, which is not within 10%"),
        ("TEST04 Offline: 1e+06 to 1.12", "TEST04: 1.12e+06 a second with the same image repeated"),
        ("TEST04 Server: reference is INVALID", "TEST04: the performance run is INVALID"),
        ("TEST01 Server: an error in the reference", "TEST01: LoadGen logged errors in the perfo"),
    ],
)
def test_the_reason_is_given(name, reason):
    (said,) = verify(*CASES[name]).reasons
    assert said.startswith(reason)


def test_a_checkout_without_the_scripts(tmp_path):
    with pytest.raises(UserError, match=r"run_verification\.py: no such file: want a checkout of"):
        run_official(tmp_path, *CASES["TEST04 Server: as measured"])


def test_the_official_scripts_themselves(inference):
    for name in [*CASES][::50]:
        assert describe(run_official(inference, *CASES[name])) == OUTCOMES[name]
