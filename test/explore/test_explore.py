"""`ck explore loadgen` around a `ck` that records made-up runs."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import FakeCk

SWEEP = ("--scenario=Offline", "--batch=1,2", "--repetitions=2", "--count=8", "--name=s")


def test_a_sweep_ends_complete_and_interleaves_repetitions(fake_ck: FakeCk) -> None:
    out, _ = fake_ck(*SWEEP)
    calls = fake_ck.list_calls()
    assert [run.rpartition(".")[2] for run in calls] == ["r1", "r1", "r1", "r2", "r2"]
    assert [run.rpartition(".")[0] for run in calls[1:3]] == [
        run.rpartition(".")[0] for run in calls[3:]
    ]
    assert len(set(calls)) == 5
    assert "2 configurations, 5 runs: 0 done, 5 to do, about 20 s (an estimate)" in out
    assert "[1/5] digits onnx, Offline, batch 2, accuracy, fp32: accuracy 99.200%" in out
    assert (
        "[5/5] digits onnx, Offline, batch 2, repetition 2, fp32: 1,234 samples/s, INVALID" in out
    )
    assert "5 of 5 runs are recorded in experiment s" in out
    assert json.loads((fake_ck.experiments / "s" / ".cm" / "meta.json").read_text()) == {
        "tags": ["explore", "loadgen"]
    }


def test_the_sweep_of_the_examples(fake_ck: FakeCk, repository: Path) -> None:
    file = f"--file={repository / 'examples' / 'sweep.yaml'}"
    out, _ = fake_ck(file)
    assert "9 configurations, 19 runs: 0 done, 19 to do" in out
    assert "19 of 19 runs are recorded in experiment example.digits" in out
    commands = list_commands(fake_ck(file, "--name=again", "--dry_run")[0])
    assert len(commands) == 19
    assert all("--env.CK_LOADGEN_BUFFER_SIZE=500" in words for words in commands)
    assert "--env.CK_LOADGEN_COUNT_OVERRIDE=700" in commands[-1]


def test_the_same_command_runs_nothing_twice(fake_ck: FakeCk) -> None:
    fake_ck(*SWEEP)
    out, _ = fake_ck(*SWEEP)
    assert "5 done, 0 to do\n" in out
    assert len(fake_ck.list_calls()) == 5


def test_a_dry_run_prints_commands_and_makes_nothing(fake_ck: FakeCk) -> None:
    commands = list_commands(fake_ck(*SWEEP, "--dry_run")[0])
    assert len(commands) == 5
    assert all("--record_uoa=s" in words and "--repetitions=1" in words for words in commands)
    assert list(fake_ck.repository.rglob("*")) == [fake_ck.experiments]
    fake_ck(*SWEEP)
    assert not list_commands(fake_ck(*SWEEP, "--dry_run")[0])


def test_a_failed_run_is_kept_and_the_sweep_goes_on(fake_ck: FakeCk) -> None:
    fake_ck.behave(batch_1="fail")
    out, err = fake_ck(*SWEEP, code=1)
    assert "batch 1, repetition 1: FAILED: the model takes at most 3 images" in out
    assert "3 of 5 runs are recorded" in out
    assert "failed: digits onnx, Offline, batch 1, repetition 2: the model takes" in err
    assert "failed runs: 2; --retry_failed tries them again" in err
    files = sorted((fake_ck.experiments / "s").glob("failed-*.json"))
    assert len(files) == 2
    failure = json.loads(files[0].read_text())
    run = failure["explore_run"]
    assert files[0].name == f"failed-{run}.json"
    assert failure["format"] == 1
    assert failure["exit_code"] == 2
    assert failure["error"] == "the model takes at most 3 images\n  at once"
    assert failure["program"] == "image-classification-tensorrt-loadgen-py"
    assert failure["weights"] == "model,onnx,digits"
    assert failure["environment"]["CK_LOADGEN_SCENARIO"] == "Offline"
    assert failure["environment"]["CK_EXPLORE_RUN"] == run
    assert failure["command"][:2] == ["ck", "benchmark"]
    assert failure["start"].endswith("+00:00")
    assert failure["wall_s"] > 0
    log = files[0].with_suffix(".log").read_text()
    assert "CK's own words" in log
    assert "warning: of no matter" in log
    assert str(files[0].with_suffix(".log")) in err


def test_a_failed_run_is_tried_again_when_asked(fake_ck: FakeCk) -> None:
    fake_ck.behave(batch_1="fail")
    fake_ck(*SWEEP, code=1)
    out, err = fake_ck(*SWEEP, code=1)
    assert "0 to do" in out
    assert "failed runs: 2" in err
    assert len(fake_ck.list_calls()) == 5
    fake_ck.behave()
    out, _ = fake_ck(*SWEEP, "--retry_failed")
    assert "2 to do" in out
    assert len(fake_ck.list_calls()) == 7
    assert not list((fake_ck.experiments / "s").glob("failed-*"))


def test_a_killed_run_is_a_failure(fake_ck: FakeCk) -> None:
    fake_ck.behave(batch_2="die")
    _, err = fake_ck(*SWEEP, "--accuracy=no", "--repetitions=1", code=1)
    assert "ended by signal 9 (SIGKILL), without a message" in err


def test_another_sweep_of_the_name_is_refused(fake_ck: FakeCk) -> None:
    options = ("--scenario=Offline", "--count=8", "--name=s", "--accuracy=no", "--repetitions=1")
    fake_ck(*options, "--batch=1,2")
    for changed, message in (
        ("--batch=1,4", "batch: 1,2 -> 1,4"),
        ("--count=9", "count: 8 -> 9"),
        ("--env.CK_VERBOSE=yes", 'env: {} -> {"CK_VERBOSE": "yes"}'),
        ("--model=resnet50", "network: digits onnx -> resnet50 onnx"),
    ):
        for more in ((), ("--dry_run",)):
            _, err = fake_ck(*options, "--batch=1,2", changed, *more, code=2)
            assert "error: experiment s is another sweep" in err
            assert message in err
            assert "--name=" in err
    assert len(fake_ck.list_calls()) == 2


def test_a_conf_file_that_changed_is_another_sweep(fake_ck: FakeCk) -> None:
    conf = fake_ck.folder / "user.conf"
    conf.write_text("*.Offline.min_duration = 1000\n")
    options = (*SWEEP, "--accuracy=no", "--repetitions=1", "--env.CK_LOADGEN_CONF_FILE=user.conf")
    fake_ck(*options)
    conf.write_text("*.Offline.min_duration = 2000\n")
    _, err = fake_ck(*options, code=2)
    assert "conf_file_sha256" in err


def test_points_that_no_sweep_made_are_left_alone(fake_ck: FakeCk) -> None:
    entry = fake_ck.experiments / "s"
    entry.mkdir()
    (entry / "ckp-0123456789abcdef.0001.json").write_text("{}")
    _, err = fake_ck(*SWEEP, code=2)
    assert "no sweep made them" in err


def test_a_half_made_entry_is_made_anew(fake_ck: FakeCk) -> None:
    entry, aliases = fake_ck.experiments / "s", fake_ck.experiments / ".cm"
    (entry / ".cm").mkdir(parents=True)
    (entry / ".cm" / "meta.json").write_text('{"ta')
    aliases.mkdir()
    (aliases / "alias-a-s").write_text("0123456789abcdef\n")
    (aliases / "alias-u-0123456789abcdef").write_text("s\n")
    fake_ck(*SWEEP)
    assert not list(aliases.iterdir())


def test_a_folder_of_the_users_is_left_alone(fake_ck: FakeCk) -> None:
    entry = fake_ck.experiments / "s"
    entry.mkdir()
    (entry / "precious.txt").write_text("mine")
    _, err = fake_ck(*SWEEP, code=2)
    assert "cannot add the experiment s" in err
    assert [path.name for path in entry.iterdir()] == ["precious.txt"]


def test_a_broken_record_is_named(fake_ck: FakeCk) -> None:
    fake_ck(*SWEEP)
    path = min((fake_ck.experiments / "s").glob("ckp-*"))
    path.write_text(path.read_text()[:40])
    _, err = fake_ck(*SWEEP, code=2)
    assert f"{path}: not JSON" in err
    path.write_text('{"characteristics_list": [{"run": {"settings": 3}}]}')
    _, err = fake_ck(*SWEEP, code=2)
    assert f"{path} is not a record" in err
    path.unlink()
    failure = fake_ck.experiments / "s" / "failed-x.r1.json"
    failure.write_text("[]")
    _, err = fake_ck(*SWEEP, code=2)
    assert f"{failure}: not a note of a failed run" in err
    failure.unlink()
    out, _ = fake_ck(*SWEEP)
    assert "4 done, 1 to do" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_the_run_in_flight(fake_ck: FakeCk, number: int) -> None:
    fake_ck.behave(batch_1=60)
    in_background = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")  # SIGINT is ignored there
    process = fake_ck.start(*SWEEP, before=() if number == signal.SIGINT else in_background)
    fake_ck.wait_for_calls(2)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "1 of 5 runs are recorded" in err
    assert "The same command continues" in err
    assert len(fake_ck.list_calls("ends")) == 1  # the second one did not come to its end
    assert not is_alive(fake_ck.list_pids()[-1])
    assert not list((fake_ck.experiments / "s").glob("failed-*"))
    fake_ck.behave()
    out, _ = fake_ck(*SWEEP)
    assert "1 done, 4 to do" in out
    assert Counter(fake_ck.list_calls("ends")) == Counter(set(fake_ck.list_calls()))


def test_nohup_is_minded(fake_ck: FakeCk) -> None:
    fake_ck.behave(batch_1=0.3)
    process = fake_ck.start(*SWEEP, before=("nohup",))
    fake_ck.wait_for_calls(2)
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate()
    assert "5 of 5 runs are recorded" in out


def test_a_run_that_does_not_hear_ctrl_c_is_killed(fake_ck: FakeCk) -> None:
    fake_ck.behave(any="stubborn")
    process = fake_ck.start(*SWEEP, GRACE_S="0.3")
    fake_ck.wait_for_calls(1)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert not fake_ck.list_calls("ends")
    assert not is_alive(fake_ck.list_pids()[-1])


def test_kill_9_loses_nothing_and_two_benchmarks_never_run_at_once(fake_ck: FakeCk) -> None:
    fake_ck.behave(batch_1=1)
    first = fake_ck.start(*SWEEP)
    fake_ck.wait_for_calls(2)
    fake_ck.behave()
    first.kill()
    first.wait()
    _, err = fake_ck(*SWEEP)
    assert "waiting: a sweep" in err
    lines = (fake_ck.folder / "calls").read_text().splitlines()
    assert [line.split()[2] for line in lines] == ["begins", "ends"] * 5
    assert len({line.split()[0] for line in lines}) == 5


def test_a_second_sweep_waits_for_the_first(fake_ck: FakeCk) -> None:
    fake_ck.behave(any=1)
    first = fake_ck.start(*SWEEP)
    fake_ck.wait_for_calls(1)
    fake_ck.behave()
    second_out, second_err = fake_ck(*SWEEP)
    assert f"process {first.pid}" in second_err
    assert "5 done, 0 to do" in second_out
    first.communicate()
    assert first.returncode == 0
    assert len(fake_ck.list_calls()) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("word",), "unrecognized arguments: word"),
        (("--dry_run=perhaps",), "--dry_run: want yes or no, not 'perhaps'"),
        (("--batchs=1",), "no such option: --batchs; did you mean --batch?"),
        (("--file=nothing.yaml",), "nothing.yaml: No such file"),
        (("--name=..",), "want letters, digits"),
        (("--jobs=2",), "jobs: means something with --cluster= only"),
    ],
)
def test_refused(fake_ck: FakeCk, options: tuple[str, ...], message: str) -> None:
    _, err = fake_ck(*options, code=2)
    assert message in err
    assert "Traceback" not in err


def test_without_ck_it_says_so(fake_ck: FakeCk, tmp_path: Path) -> None:
    process = fake_ck.start(*SWEEP, PATH=str(tmp_path))
    _, err = process.communicate()
    assert process.returncode == 2
    assert "no `ck` command" in err


def list_commands(out: str) -> list[list[str]]:
    return [shlex.split(line) for line in out.splitlines() if line.startswith("ck ")]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie is no more, though nobody has asked for its exit code yet.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
