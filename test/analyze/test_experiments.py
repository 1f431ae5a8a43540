import json

import pytest

from ck_mlperf.analyze.experiments import ExperimentFile, find_files, read_file, read_runs
from ck_mlperf.common.errors import UserError

FAILURE = {
    "format": 1,
    "explore_run": "a1b2-3",
    "start": "2026-03-01T10:30:00+00:00",
    "wall_s": 3.5,
    "exit_code": 2,
    "error": "error: no plan for this GPU",
    "program": "image-classification-tensorrt-loadgen-py",
    "environment": {"CK_LOADGEN_SCENARIO": "Server", "CK_EXPLORE_RUN": "a1b2-3"},
    "weights": "model,tensorrt,resnet,int8,maxbatch.8",
    "command": ["ck", "benchmark"],
}


def test_runs_are_read_in_the_order_of_names_and_files(save_point, record, first_record, tmp_path):
    save_point(record, experiment="b")
    save_point(record, first_record, experiment="a")
    runs = read_runs([tmp_path / "local"])
    assert [(run.experiment, run.file, run.repetition) for run in runs] == [
        ("a", "ckp-0000000000000002.0001.json", 0),
        ("a", "ckp-0000000000000002.0001.json", 1),
        ("b", "ckp-0000000000000001.0001.json", 0),
    ]


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        ([], ["fp16.batch.1", "fp16.batch.8", "int8.batch.8"]),
        (["fp16.batch.8"], ["fp16.batch.8"]),
        (["fp16*", "int8.batch.?"], ["fp16.batch.1", "fp16.batch.8", "int8.batch.8"]),
    ],
)
def test_experiments_are_named_by_patterns(save_point, record, tmp_path, patterns, found):
    for name in ("int8.batch.8", "fp16.batch.8", "fp16.batch.1"):
        save_point(record, experiment=name)
    assert [file.experiment for file in find_files([tmp_path / "local"], patterns)] == found


def test_a_name_that_is_not_there_is_an_error_that_lists_the_others(save_point, record, tmp_path):
    save_point(record, experiment="fp16")
    with pytest.raises(UserError, match=r"no experiment has the name int8\. There are: fp16;"):
        read_runs([tmp_path / "local"], ["fp16", "int8"])


def test_several_repositories_each_read_once(save_point, record, tmp_path):
    other = tmp_path / "other"
    save_point(record, experiment="mine")
    save_point(record, experiment="theirs", repository=other)
    runs = read_runs([tmp_path / "local", other, tmp_path / "local" / ".." / "other"])
    assert [run.experiment for run in runs] == ["mine", "theirs"]


def test_a_repository_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder; --repository wants"):
        read_runs([tmp_path / "nowhere"])


def test_a_repository_without_experiments(tmp_path):
    assert read_runs([tmp_path]) == []


def test_other_programs_are_counted(save_point, record, tmp_path, capsys):
    save_point(record)
    save_point({"execution_time": 1.5}, experiment="theirs")
    save_point(experiment="nothing")
    path = save_point(experiment="a list")
    path.write_text("[1, 2]")
    assert len(read_runs([tmp_path / "local"])) == 1
    assert capsys.readouterr().err == "3 files were passed over, of other programs\n"


def test_a_failed_repetition_leaves_the_others(save_point, record, tmp_path):
    """What `--record_failed` leaves has no record, beside repetitions that have one."""
    save_point({"run_success": "no"}, record)
    (run,) = read_runs([tmp_path / "local"])
    assert run.repetition == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no JSON: Expecting value"),
        (b'{"characteristics_list": [{"run": {"schema_ver', "no JSON: Unterminated string"),
        (b'"\xff"', "no JSON: 'utf-8' codec"),
        (b"[" * 100_000, "no JSON: maximum recursion depth"),
        (b'{"characteristics_list": [{"run": {"schema_version": 999}}]}', "made by a newer"),
        (b'{"characteristics_list": [{"run": {"schema_version": "2"}}]}', "no record of a run"),
        (
            b'{"characteristics_list": [{"run": {"schema_version": 2}}]}',
            "no record of a run of version 2: ",
        ),
    ],
)
def test_unreadable_files_are_named_and_passed_over(
    save_point, record, tmp_path, capsys, content, said
):
    save_point(record)
    path = save_point(record)
    path.write_bytes(content)
    assert len(read_runs([tmp_path / "local"])) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"passed over: {path}: {said}")
    assert second == "1 file was passed over, which could not be read"


def test_a_file_that_went_away(tmp_path):
    with pytest.raises(UserError, match=r"ckp-1\.0001\.json: No such file"):
        read_file(ExperimentFile("digits", tmp_path / "ckp-1.0001.json"))


def test_a_run_of_a_sweep_that_failed(save_point, record, tmp_path):
    entry = save_point(record).parent
    (entry / "failed-a1b2-3.json").write_text(json.dumps(FAILURE))
    (entry / "failed-a1b2-3.log").write_text("what it printed")
    measured, failed = read_runs([tmp_path / "local"])
    assert measured.error is None
    assert failed.error == "error: no plan for this GPU"
    assert failed.explore_run == "a1b2-3"
    assert (failed.scenario, failed.mode, failed.precision) == ("Server", "AccuracyOnly", "int8")
    assert failed.samples_per_second is None
    assert failed.command == (
        "ck benchmark program:image-classification-tensorrt-loadgen-py --repetitions=1 "
        "--env.CK_LOADGEN_SCENARIO=Server "
        "--dep_add_tags.weights=int8,maxbatch.8,model,resnet,tensorrt --skip_print_timers"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"start": "yesterday"},
        {"start": "2026-03-01T10:30:00"},
        {"environment": ["CK_BATCH_SIZE"]},
        {"environment": {"CK_BATCH_SIZE": "many"}},
        {"weights": None},
        {"error": 3},
        {"wall_s": True},
    ],
)
def test_a_note_of_a_failure_that_is_none(save_point, record, tmp_path, capsys, change):
    path = save_point(record).with_name("failed-1.json")
    path.write_text(json.dumps({**FAILURE, **change}))
    assert len(read_runs([tmp_path / "local"])) == 1
    assert f"{path}: no note of a failed run: " in capsys.readouterr().err
