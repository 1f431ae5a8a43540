import copy
import json
from pathlib import Path

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.results.migrate import migrate
from ck_mlperf.results.record import SCHEMA_VERSION

RECORDS = Path(__file__).resolve().parents[1] / "data" / "records"
FIRST = json.loads((RECORDS / "version-1-first.json").read_text())
CURRENT = json.loads((RECORDS / f"version-{SCHEMA_VERSION}-first.json").read_text())


def list_paths(value, path=()) -> list[tuple]:
    """The path to each part of a record, as keys and indices; but not into a model's recipe."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    paths = []
    for key, part in items:
        paths.append((*path, key))
        if isinstance(part, (dict, list)) and paths[-1] != ("model", "recipe"):
            paths += list_paths(part, (*path, key))
    return paths


def find_holder(record, path):
    for key in path[:-1]:
        record = record[key]
    return record


def test_current_records_stay_as_they_are():
    assert migrate(CURRENT) == CURRENT


def test_what_version_1_did_not_note():
    before = copy.deepcopy(FIRST)
    record = migrate(FIRST)
    assert before == FIRST
    assert record["schema_version"] == SCHEMA_VERSION
    assert record["conditions"] is None
    assert record["engine"] == {**FIRST["engine"], "devices": None}
    ours = record["settings"]["ours"]
    assert ours["CK_EXPLORE_RUN"] == ours["CK_CUDA_DEVICES"] == {"value": None, "origin": "default"}
    changed = ("schema_version", "conditions", "engine", "settings")
    assert {k: v for k, v in record.items() if k not in changed} == {
        k: v for k, v in FIRST.items() if k not in changed
    }


def test_what_later_records_of_version_1_noted_stays():
    later = copy.deepcopy(FIRST)
    devices = [{"device": "GPU 1", "samples": 160, "samples_per_second": 9.5, "batches": 20}]
    later["engine"]["devices"] = devices
    later["settings"]["ours"]["CK_CUDA_DEVICES"] = {"value": [1], "origin": "env"}
    record = migrate(later)
    assert record["engine"]["devices"] == devices
    assert record["settings"]["ours"]["CK_CUDA_DEVICES"]["value"] == [1]


def test_a_newer_version():
    with pytest.raises(UserError, match="made by a newer ck-mlperf: version 99; update this"):
        migrate({"schema_version": 99})


@pytest.mark.parametrize(
    "text",
    ["null", "[]", "3", '"record"', "{}", '{"schema_version": "1"}', '{"schema_version": true}',
     '{"schema_version": 1.0}', '{"schema_version": 0}', '{"schema_version": null}'],
)  # fmt: skip
def test_no_record_at_all(text):
    with pytest.raises(UserError, match="no record of a run: it is no JSON object with a schema"):
        migrate(json.loads(text))


@pytest.mark.parametrize("first", [FIRST, CURRENT], ids=["version 1", "current"])
def test_any_part_missing(first):
    free = ("environment", "packages"), ("settings", "loadgen"), ("dataset", "libraries")
    for path in list_paths(first):
        if isinstance(path[-1], int) or path[:-1] in free or path == ("schema_version",):
            continue
        record = copy.deepcopy(first)
        del find_holder(record, path)[path[-1]]
        with pytest.raises(UserError, match=rf"[ .]{path[-1]} is missing"):
            migrate(record)


@pytest.mark.parametrize("first", [FIRST, CURRENT], ids=["version 1", "current"])
def test_any_part_of_a_wrong_type(first):
    class Odd:
        """Of no type that JSON has."""

    for path in list_paths(first):
        record = copy.deepcopy(first)
        find_holder(record, path)[path[-1]] = Odd()
        with pytest.raises(UserError, match="no record of a run"):
            migrate(record)


def test_the_error_names_the_part():
    record = copy.deepcopy(CURRENT)
    record["verdicts"]["rules"][0]["checks"][0]["required"] = "many"
    with pytest.raises(UserError) as caught:
        migrate(record)
    assert str(caught.value) == (
        "no record of a run of version 2: verdicts.rules[0].checks[0].required is not of type "
        "number"
    )
    with pytest.raises(UserError, match="scenario is none of SingleStream, MultiStream, Server"):
        migrate(CURRENT | {"scenario": "Multistream"})
    with pytest.raises(UserError, match=r"accuracy.good is not of type integer"):
        migrate(CURRENT | {"accuracy": CURRENT["accuracy"] | {"good": True}})


def test_what_is_beside_a_record_is_let_through():
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    assert migrate(CURRENT | {"run_time": 1.5, "nested": nested})["run_time"] == 1.5
    while nested:
        nested = nested[0]
