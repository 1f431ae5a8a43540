"""user.conf: what LoadGen passes over in silence is a problem here."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from ck_mlperf.loadgen import mlperf_conf
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
    conf = read(text)
    assert (conf.problems, conf.notes) == ([], [])
    assert conf.values == {"min_query_count": 4, "min_duration": 600000, "target_qps": 12.5}
    assert read(text, "Server").values["min_query_count"] == 2
    assert read(text, "Server").values["target_latency"] == 15


def test_lines_for_any_model_of_mlperf_conf(read):
    """Also with keys that only such a model has."""
    models = mlperf_conf.MODELS - {"resnet50"}
    assert {"yolo", "wan-2.2-t2v-a14b"} <= models
    lines = [f"{model}.*.performance_sample_count_override = 64" for model in sorted(models)]
    conf = read("\n".join([*lines, "llama2-70b.Server.ttft_latency = 2000"]))
    assert (conf.values, conf.problems, conf.notes) == ({}, [], [])


def test_models_are_those_of_the_installed_loadgen():
    """Its mlperf.conf is compiled into the Python module."""
    mlperf_loadgen = pytest.importorskip("mlperf_loadgen")
    text = Path(mlperf_loadgen.__file__).read_bytes()
    names = re.findall(rb"^([\w.-]+)\.[\w*]+\.\w+ = \d", text, re.MULTILINE)
    assert {name.decode() for name in names} == mlperf_conf.MODELS
    assert importlib.metadata.version("mlcommons-loadgen") == mlperf_conf.VERSION


def test_unknown_model_is_passed_over_with_a_note(read):
    conf = read("*.*.min_duration = 5\nssd-resnet34.Server.target_latency = 100\n")
    assert (conf.values, conf.problems) == ({"min_duration": 5}, [])
    assert "line 2: passed over" in conf.notes[0]
    assert "'ssd-resnet34'" in conf.notes[0]


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
        ("resnet-50.Offline.min_query_count = 9", "did you mean resnet50?"),
        ("ResNet50.Offline.min_query_count = 9", "did you mean resnet50?"),
        ("*.MultiStream.target_qps = 20", "does not read target_qps in MultiStream"),
        ("*.SingleStream.target_latency_percentile = 100", "below 100"),
        ("*.Offline.mode = 2", "set CK_LOADGEN_MODE instead"),
        ("*.*.qsl_rng_seed = 7", "its own mlperf.conf"),
        ("*.*.performance_sample_count_override = 64", "CK_LOADGEN_BUFFER_SIZE"),
        ("min_duration = 5", "want `model.Scenario.key = value`"),
        ("yolo.Offline.target_qps=10", "with a space on either side"),
    ],
)
def test_problem(read, line, wanted):
    problems = read(f"# first\n\n{line}\n").problems
    assert len(problems) == 1
    assert wanted in problems[0]
    assert "user.conf, line 3: " in problems[0]


def test_twice(read):
    problems = read("*.*.min_duration = 1\n*.*.min_duration = 2\n").problems
    assert problems[0].endswith("line 2: *.*.min_duration is set on line 1 already")


@pytest.mark.parametrize(
    "content",
    [
        b"*.Offline.target_qps\xa0=\xa010\n",
        "*.Offline.target_qps\u00a0= 10\n".encode(),
        "\u00a0*.Offline.target_qps = 10\n".encode(),
        "*.Offline.target_qps = 10\u0085\n".encode(),
        "*.Offline.target_qps = 10\u2028*.*.min_duration = 5\n".encode(),
        b"*.Offline.target_qps\x1f= 10\n",  # a blank for str.split
        b"*.Offline.target_qps = 10\x1d\n",
        b"*.Offline.target_qps = 10\0\n",
        b"\xef\xbb\xbf*.Offline.target_qps = 10\n",
        "*.Offline.target_qps = 10\n".encode("utf-16"),
    ],
)
def test_what_looks_like_a_blank_and_is_none_for_loadgen(read, content):
    conf = read(content)
    assert conf.values == {}
    assert "line 1: b'" in conf.problems[0]
    assert "LoadGen wants ASCII" in conf.problems[0]
    assert conf.problems[0].isprintable()


def test_a_line_ends_with_a_line_feed_alone(read):
    text = b"# rate:\r*.Offline.target_qps = 10\r\n\f*.*.min_duration\v= 5\t\r\n"
    conf = read(text)
    assert conf.values == {"min_duration": 5}
    (problem,) = conf.problems
    assert "line 1: a carriage return in it" in problem


@pytest.mark.parametrize("end", ["\u0085", "\u2028", "\x1c", "\f"])
def test_a_comment_goes_on_to_the_line_feed(read, end):
    conf = read(f"# f\xfcr{end}*.Offline.target_qps = 10\n".encode() + b"# \xff\n")
    assert (conf.values, conf.problems, conf.notes) == ({}, [], [])


def test_latency_of_other_scenarios_may_have_decimals(read):
    conf = read("*.SingleStream.target_latency = 0.5\n", "SingleStream")
    assert (conf.values, conf.problems) == ({"target_latency": 0.5}, [])
