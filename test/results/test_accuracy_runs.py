"""A performance record names the accuracy record that belongs to it."""

import json
import os

import pytest

from ck_mlperf.results.accuracy_runs import name_accuracy_runs
from ck_mlperf.results.experiments import read_records

from ..builders.records import make_json

ACCURACY = {"mode": "AccuracyOnly", "latencies_ns": None}
PERFORMANCE = {"mode": "PerformanceOnly", "accuracy": None}


def make_point(*records):
    return json.dumps({"characteristics_list": [{"run": record} for record in records]})


@pytest.fixture
def name_run(save_point, tmp_path):
    """name_run(recorded accuracy records...): the `accuracy_run` of a performance record."""

    def name(*recorded, **changes):
        for record in recorded:
            path = save_point(record)
        point = make_point(make_json(**PERFORMANCE, **changes))
        entry = tmp_path / "local" / "experiment" / "digits"
        entry.mkdir(parents=True, exist_ok=True)
        path = save_point(uid="f" * 16)
        path.write_text(name_accuracy_runs(entry, point))
        (record,) = read_records(path)
        return record.accuracy_run

    return name


def test_the_accuracy_run_of_the_same_model_engine_and_images(name_run):
    accuracy = make_json(**ACCURACY)
    found = name_run(accuracy, make_json(**PERFORMANCE))
    assert found.file == "ckp-0000000000000001.0001.json"
    assert found.start == accuracy["timing"]["start"]
    assert (found.top1_percent, found.total) == (10.8, 500)
    assert found.log_sha256 == accuracy["logs"][0]["sha256"]


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"sha256": "9" * 64}},
        {"engine": {"name": "onnxruntime-cuda"}},
        {"engine": {"version": "0.1"}},
        {"dataset": {"images_sha256": "9" * 64}},
    ],
)
def test_another_one_is_not_named(name_run, change):
    assert name_run(make_json(**ACCURACY), **change) is None


def test_what_cannot_be_read_is_passed_over(name_run, tmp_path):
    accuracy = make_json(**ACCURACY)
    entry = tmp_path / "local" / "experiment" / "digits"
    entry.mkdir(parents=True)
    os.mkfifo(entry / "ckp-aaaaaaaaaaaaaaaa.0001.json")
    cut_off = '"top5_percent" ' + accuracy["model"]["sha256"]
    (entry / "ckp-bbbbbbbbbbbbbbbb.0001.json").write_text(cut_off)
    assert name_run(accuracy).file == "ckp-0000000000000001.0001.json"


def test_most_images_then_the_newest(name_run):
    def accuracy(total, day):
        return make_json(**ACCURACY, timing={"start": f"2026-03-0{day}T00:00:00+00:00"}) | {
            "accuracy": {"top1_percent": 70.0, "top5_percent": None, "good": 7, "total": total}
        }

    found = name_run(accuracy(10, 4), accuracy(500, 3), accuracy(500, 2))
    assert (found.total, found.start[:10]) == (500, "2026-03-03")


def test_a_record_that_names_one_keeps_it(save_point, tmp_path):
    path = save_point(make_json(**ACCURACY))
    named = name_accuracy_runs(path.parent, make_point(make_json(**PERFORMANCE)))
    path.unlink()
    assert name_accuracy_runs(path.parent, named) == named


@pytest.mark.parametrize(
    "point", [make_point("text", None), make_point(make_json(**ACCURACY)), "{}"]
)
def test_other_points_stay_as_they_are(tmp_path, point):
    assert name_accuracy_runs(tmp_path, point) == point


def test_records_of_older_versions_are_named_too(name_run):
    assert name_run(make_json(1, **ACCURACY)) is not None
