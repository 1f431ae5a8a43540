import json

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.results.experiments import find_files, list_files, read_failure, read_records

from ..builders.records import FAILURE, make_json, make_record


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        ([], ["fp16.batch.1", "fp16.batch.8", "int8.batch.8"]),
        (["fp16.batch.8"], ["fp16.batch.8"]),
        (["fp16*", "int8.batch.?"], ["fp16.batch.1", "fp16.batch.8", "int8.batch.8"]),
    ],
)
def test_experiments_are_named_by_patterns(save_point, tmp_path, patterns, found):
    for name in ("int8.batch.8", "fp16.batch.8", "fp16.batch.1"):
        save_point(make_json(), experiment=name)
    assert [file.experiment for file in find_files([tmp_path / "local"], patterns)] == found


def test_a_name_that_is_not_there_is_an_error_that_lists_the_others(save_point, tmp_path):
    save_point(experiment="fp16")
    with pytest.raises(UserError, match=r"no experiment has the name int8\. There are: fp16;"):
        find_files([tmp_path / "local"], ["fp16", "int8"])


def test_several_repositories_each_listed_once(save_point, tmp_path):
    other = tmp_path / "other"
    save_point(experiment="mine")
    save_point(experiment="theirs", repository=other)
    files = find_files([tmp_path / "local", other, tmp_path / "local" / ".." / "other"])
    assert [file.experiment for file in files] == ["mine", "theirs"]


def test_a_repository_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder; --repository wants"):
        find_files([tmp_path / "nowhere"])


def test_a_repository_without_experiments(tmp_path):
    assert find_files([tmp_path]) == []


def test_the_files_of_an_entry(save_point):
    point = save_point(make_json())
    failure = point.with_name("failed-a1b2-3.json")
    failure.write_text(json.dumps(FAILURE))
    point.with_name("failed-a1b2-3.log").write_text("what it printed")
    files = list_files(point.parent)
    assert [(file.path, file.is_failure) for file in files] == [(point, False), (failure, True)]


def test_repetitions_keep_their_places(save_point):
    """What `--record_failed` leaves has no record, beside repetitions that have one."""
    path = save_point({"run_success": "no"}, make_json(), make_json(1), 3)
    assert read_records(path) == [None, make_record(), make_record(1), None]


@pytest.mark.parametrize(
    "content", ["[1, 2]", "{}", '{"characteristics_list": 3}', '{"characteristics_list": []}']
)
def test_files_of_other_programs_have_no_records(save_point, content):
    path = save_point()
    path.write_text(content)
    assert read_records(path) == []


def test_what_python_writes_beyond_json_does_not_hide_a_record(save_point):
    """CK's statistics of a point may be NaN."""
    path = save_point(make_json())
    path.write_text(f'{{"deviation": NaN, {path.read_text()[1:]}')
    assert read_records(path) == [make_record()]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON: Expecting value"),
        (b'{"characteristics_list": [{"run": {"schema_ver', "not JSON: Unterminated string"),
        (b'"\xff"', "not JSON: 'utf-8' codec"),
        (b"[" * 100_000, "not JSON: nested too deeply"),
        (b'{"characteristics_list": [{"run": {"schema_version": 999}}]}', "made by a newer"),
        (b'{"characteristics_list": [{"run": {"schema_version": "2"}}]}', "not a record of a run"),
        (
            b'{"characteristics_list": [{"run": {"schema_version": 3}}]}',
            "not a record of a run of version 3: Object missing required field `program`",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_named(save_point, content, said):
    path = save_point()
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_records(path)
    assert str(caught.value).startswith(f"{path}: {said}")


def test_a_file_that_went_away(tmp_path):
    with pytest.raises(UserError, match=r"ckp-1\.0001\.json: No such file"):
        read_records(tmp_path / "ckp-1.0001.json")


def test_the_note_of_a_failure(tmp_path):
    path = tmp_path / "failed-a1b2-3.json"
    path.write_text(json.dumps(FAILURE))
    failure = read_failure(path)
    assert failure.error == "error: no plan for this GPU"
    assert failure.environment["CK_LOADGEN_SCENARIO"] == "Server"


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"start": "yesterday"},
        {"start": "2026-03-01T10:30:00"},
        {"environment": ["CK_BATCH_SIZE"]},
        {"weights": None},
        {"error": 3},
        {"wall_s": True},
    ],
)
def test_a_note_of_a_failure_that_is_none(tmp_path, change):
    path = tmp_path / "failed-1.json"
    path.write_text(json.dumps({**FAILURE, **change}))
    with pytest.raises(UserError, match=r"failed-1\.json: not a note of a failed run: "):
        read_failure(path)
