"""MLPerf's compliance tests under the real LoadGen, as its own log tells of them."""

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.compliance import COMPLIANCE_TESTS
from ck_mlperf.loadgen.job import LOG_NAMES
from ck_mlperf.loadgen.resolve import resolve_settings
from ck_mlperf.loadgen.settings import RunSettings, read_settings

SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
# What the audit.config of mlcommons/inference sets for ResNet-50, as LoadGen logs it.
EFFECTIVE = {
    "TEST01": {
        "test_mode": "PerformanceOnly",
        "accuracy_log_rng_seed": 720381539243781796,
        "accuracy_log_sampling_target": 4096,
        "performance_issue_same": False,
    },
    "TEST04": {
        "test_mode": "PerformanceOnly",
        "accuracy_log_sampling_target": 0,
        "performance_issue_unique": False,
        "performance_issue_same": True,
        "performance_issue_same_index": 3,
    },
}
both_interfaces = pytest.mark.parametrize("interface", ["wheel", "native"], indirect=True)


@both_interfaces
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("test", COMPLIANCE_TESTS)
def test_loadgen_runs_the_test(run_marked, test, scenario, interface):
    more = interface | ({"LOADGEN_TARGET_QPS": 2000} if scenario == "Server" else {})
    result = run_marked(
        scenario, "PerformanceOnly", LOADGEN_COMPLIANCE=test, LOADGEN_COUNT_OVERRIDE=700, **more
    )
    assert result.code == 0, result.stderr
    logged = {name: result.read_detail(f"effective_{name}") for name in EFFECTIVE[test]}
    assert logged == EFFECTIVE[test]
    assert "Found Audit Config file" in (result.log_dir / "mlperf_log_detail.txt").read_text()
    ours = result.report["loadgen_settings"]
    assert all(ours[name] == value for name, value in logged.items() if name != "test_mode")
    answers = result.read_accuracy()
    assert all(index == label for index, label in answers)
    assert bool(answers) == (test == "TEST01")
    assert sorted(path.name for path in result.log_dir.iterdir()) == list(LOG_NAMES)


def test_user_conf_cannot_take_a_test_back(run_marked, tmp_path):
    conf = tmp_path / "user.conf"
    conf.write_text("*.*.performance_issue_same = 0\n*.*.min_query_count = 700\n")
    result = run_marked(
        "SingleStream", "PerformanceOnly", LOADGEN_COMPLIANCE="TEST04", LOADGEN_DURATION=0,
        LOADGEN_CONF_FILE=conf,
    )  # fmt: skip
    assert result.code == 0, result.stderr
    assert result.read_detail("effective_performance_issue_same") is True
    assert result.read_detail("effective_min_query_count") == 700


def test_the_mode_follows_the_test():
    assert read_settings({"CK_LOADGEN_COMPLIANCE": "TEST04"}).mode == "PerformanceOnly"
    with pytest.raises(UserError, match="CK_LOADGEN_MODE=AccuracyOnly: TEST01 is a test of perf"):
        read_settings({"CK_LOADGEN_COMPLIANCE": "TEST01", "CK_LOADGEN_MODE": "AccuracyOnly"})


def test_the_image_that_is_sent_must_be_loaded():
    settings = RunSettings(compliance="TEST04", mode="PerformanceOnly", buffer_size=3)
    with pytest.raises(UserError, match=r"it repeats image 3 \(from 0\), and only 3 are"):
        resolve_settings(settings, 500, None)
