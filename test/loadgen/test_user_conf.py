"""user.conf: what LoadGen passes over in silence is a problem here."""

import pytest

from ck_mlperf.loadgen.user_conf import read_user_conf


@pytest.fixture
def read(tmp_path):
    def read(text, scenario="Offline"):
        path = tmp_path / "user.conf"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_user_conf(path, scenario)

    return read


def test_precedence(read):
    text = """
# a comment = with an equals sign
resnet50.Offline.min_query_count = 4
*.Offline.min_query_count = 3
resnet50.*.min_query_count = 2
*.*.min_query_count = 1
*.*.min_duration = 600000
*.Offline.target_qps = 12.5\r
ssd-mobilenet.Offline.min_duration = 7
*.Server.target_latency = 15
"""
    values, problems = read(text)
    assert problems == []
    assert values == {"min_query_count": 4, "min_duration": 600000, "target_qps": 12.5}
    assert read(text, "Server")[0]["min_query_count"] == 2
    assert read(text, "Server")[0]["target_latency"] == 15


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("*.Offline.target_qps=10", "with a space on either side"),
        ("*.Offline.target_qps =10", "with a space on either side"),
        ("*.Offline.target_qps = ", "with a space on either side"),
        ("*.Offline.target_qps = 10 20", "with a space on either side"),
        ("*.Offline.target_qps = 10 # fast", "a line of its own"),
        ("#*.Offline.target_qps = 10", "a space after the #"),
        ("*.Offline.target_qps = fast", "want a number above 0"),
        ("*.Offline.target_qps = 0", "want a number above 0"),
        ("*.Offline.target_qps = 1-2", "want a number above 0"),
        ("*.Offline.target_qps = nan", "want a number above 0"),
        ("*.Server.target_latency = 15.5", "want a whole number"),
        ("*.Offline.min_duration = 1e4", "want a whole number"),
        ("*.Offline.min_duration = 010", "want a whole number"),
        ("*.Offline.min_duration = -1", "want a whole number"),
        ("*.Offline.min_query_count = 99999999999", "want a whole number"),
        ("*.Offline.min_querry_count = 9", "did you mean min_query_count?"),
        ("*.offline.min_query_count = 9", "did you mean Offline?"),
        ("resnet.Offline.min_query_count = 9", "did you mean resnet50?"),
        ("*.MultiStream.target_qps = 20", "does not read target_qps in MultiStream"),
        ("*.SingleStream.target_latency_percentile = 100", "below 100"),
        ("*.Offline.mode = 2", "set CK_LOADGEN_MODE instead"),
        ("*.*.qsl_rng_seed = 7", "its own mlperf.conf"),
        ("*.*.performance_sample_count_override = 64", "CK_LOADGEN_BUFFER_SIZE"),
        ("min_duration = 5", "no model 'min_duration'"),
    ],
)
def test_problem(read, line, wanted):
    _, problems = read(f"# first\n\n{line}\n")
    assert len(problems) == 1
    assert wanted in problems[0]
    assert "user.conf, line 3: " in problems[0]


def test_twice(read):
    _, problems = read("*.*.min_duration = 1\n*.*.min_duration = 2\n")
    assert problems[0].endswith("line 2: *.*.min_duration is set on line 1 already")


def test_no_text(read):
    assert "not a text file" in read(b"\xff\xfe\x00")[1][0]


def test_latency_of_other_scenarios_may_have_decimals(read):
    values, problems = read("*.SingleStream.target_latency = 0.5\n", "SingleStream")
    assert (values, problems) == ({"target_latency": 0.5}, [])
