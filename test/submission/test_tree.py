"""The tree that is written from recorded runs."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.user_conf import read_user_conf
from ck_mlperf.submission.check import check_tree
from ck_mlperf.submission.runs import choose_runs, infer_scenarios, read_recorded_runs
from ck_mlperf.submission.tree import Submission, write_submission

from ..builders.submission import EDGE, SOURCE, SYSTEM, alter_logs, save_run, save_runs, write_tree
from .record_checker import truncate_officially

LOG = "mlperf_log_accuracy.json"
NOT_ALL = "the images are 500 of imagenet, not the 50,000 of ImageNet's validation set"


@pytest.fixture
def local(tmp_path):
    return tmp_path / "local"


def write(local, folder, division="closed", infer=()):
    """Write the tree of what is recorded. Returns what is wrong, and the benchmark's folder."""
    scenarios = choose_runs(read_recorded_runs([local], ["submission"]), division)
    infer_scenarios(scenarios, infer)
    complaints = write_submission(Submission(division, "Acme", SYSTEM, scenarios), folder)
    (benchmark,) = (folder / division / "Acme" / "results").glob("*/*")
    return complaints, benchmark


@pytest.mark.parametrize("division", ["closed", "open"])
def test_the_files(trees, division):
    root = trees.make(f"nothing, {division}")
    assert check_tree(root) == []
    acme = root / division / "Acme"
    files = {path.relative_to(acme).as_posix() for path in acme.rglob("*") if path.is_file()}
    of_all = {"systems/Altered_logs_no_system.json", "src/README.md"}
    of_all.add("documentation/calibration.md")
    of_all |= {"model_mapping.json"} if division == "open" else set()
    run = ["mlperf_log_detail.txt", "mlperf_log_summary.txt"]
    names = {"measurements.json", "user.conf", "README.md"}
    names |= {f"performance/run_1/{name}" for name in run}
    names |= {f"accuracy/{name}" for name in (*run, LOG, "accuracy.txt")}
    if division == "closed":
        for test in ("TEST01", "TEST04"):
            names |= {f"{test}/performance/run_1/{name}" for name in run}
            names.add(f"{test}/verify_performance.txt")
        names |= {f"TEST01/{name}" for name in ("verify_accuracy.txt", f"accuracy/{LOG}")}
        names.add("TEST01/accuracy/accuracy.txt")
    place = "results/Altered_logs_no_system/resnet50"
    assert files == of_all | {f"{place}/{scenario}/{n}" for scenario in EDGE for n in names}
    assert json.loads((acme / "systems/Altered_logs_no_system.json").read_text()) == {
        "division": division,
        "submitter": "Acme",
        **SYSTEM,
    }


def test_the_accuracy_log_is_truncated_and_the_whole_is_kept(local, tmp_path):
    save_runs(local)
    _, benchmark = write(local, tmp_path / "tree")
    whole = alter_logs("Offline", "accuracy")[LOG]
    accuracy = benchmark / "Offline" / "accuracy"
    assert (accuracy / LOG).read_bytes() == whole[:4096] + b"\n\n...\n\n" + whole[-4096:]
    digest = hashlib.sha256(whole).hexdigest()
    assert (accuracy / "accuracy.txt").read_text() == (
        f"accuracy=76.456%, good=38228, total=50000\n\nhash={digest}\n"
    )
    originals = tmp_path / "tree-originals"
    kept = originals / accuracy.relative_to(tmp_path / "tree") / LOG
    assert kept.read_bytes() == whole
    assert len(list(originals.rglob(LOG))) == 6


@pytest.mark.slow
def test_the_official_script_truncates_so(inference, local, tmp_path):
    """On the tree with the whole logs, and without their hashes, it leaves what is written here."""
    write_tree(tmp_path / "tree", local)
    ours = {
        path.relative_to(tmp_path / "tree").as_posix(): path.read_text()
        for name in (LOG, "accuracy.txt")
        for path in (tmp_path / "tree").rglob(name)
    }
    shutil.copytree(tmp_path / "tree", tmp_path / "whole")
    shutil.copytree(tmp_path / "tree-originals", tmp_path / "whole", dirs_exist_ok=True)
    for path in (tmp_path / "whole").rglob("accuracy.txt"):
        path.write_text(path.read_text().partition("\nhash=")[0])
    assert truncate_officially(inference, tmp_path / "whole") == ours


def test_user_conf_gives_the_settings_in_force(tree):
    conf = read_user_conf(tree.at("MultiStream/user.conf"), "MultiStream")
    assert conf.problems == conf.notes == []
    assert conf.values == {
        "min_duration": 600_000,
        "min_query_count": 20,
        "target_latency": pytest.approx(0.82, abs=0.5),
        "target_latency_percentile": 99,
        "samples_per_query": 8,
    }


def test_measurements_and_readme(tree):
    measurements = json.loads(tree.at("Offline/measurements.json").read_text())
    assert measurements["weight_data_types"] == "fp32"
    assert measurements["starting_weights_filename"] == f"resnet50_v1.onnx (md5 {SOURCE['md5']})"
    readme = tree.at("Offline/README.md").read_text()
    assert readme.startswith("# resnet50, Offline\n")
    assert "Not a result" not in readme
    assert "--env.CK_LOADGEN_COMPLIANCE=TEST04" in readme
    assert "ck benchmark program:image-classification" in readme


def test_fp32_says_that_nothing_was_calibrated(tree):
    text = (tree.submitter / "documentation" / "calibration.md").read_text()
    assert "Nothing was calibrated: resnet50 computes in fp32" in text


def test_int8_says_how_it_was_calibrated(local, tmp_path):
    conversion = {
        "precision": "int8",
        "input": "uint8",
        "output": "class",
        "source_sha256": "a" * 64,
        "libraries": {"onnxruntime": "1.20"},
        "calibration": {
            "count": 500,
            "method": "entropy",
            "images_sha256": "b" * 64,
            "source_list_sha256": "c" * 64,
        },
    }
    runs = {"scenarios": ["Offline"], "kinds": ["performance", "accuracy"]}
    model = {
        "recipe": {"conversion": conversion},
        "calibration_list": "MLPerf's list, option 1",
        "precision": "int8",
    }
    save_runs(local, model=model, **runs)
    _, benchmark = write(local, tmp_path / "tree", "open")
    text = (tmp_path / "tree/open/Acme/documentation/calibration.md").read_text()
    for said in ("500 images", "`entropy`", "onnxruntime 1.20", "a" * 64, "b" * 64, "option 1"):
        assert said in text
    measurements = json.loads((benchmark / "Offline/measurements.json").read_text())
    assert measurements["weight_data_types"] == "int8"
    assert "calibration.md" in measurements["weight_transformations"]


def test_what_is_inferred_is_called_so(local, tmp_path):
    save_runs(local, scenarios=["SingleStream"])
    complaints, benchmark = write(local, tmp_path / "tree", infer=["MultiStream", "Offline"])
    assert complaints == []
    assert "Inferred from the run in SingleStream" in (benchmark / "Offline/README.md").read_text()
    assert "Inferred" not in (benchmark / "SingleStream/README.md").read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Server", "--infer=Server: want MultiStream, Offline or both"),
        ("Offline", "the experiments have a run of it"),
    ],
)
def test_what_cannot_be_inferred(local, name, said):
    save_runs(local, scenarios=["Offline"], kinds=["performance", "accuracy"])
    scenarios = choose_runs(read_recorded_runs([local], ["submission"]), "open")
    with pytest.raises(UserError, match=said):
        infer_scenarios(scenarios, [name])
    with pytest.raises(UserError, match="SingleStream, which was not run"):
        infer_scenarios(scenarios, ["MultiStream"])


UNOFFICIAL = {
    "500 images": {
        "rules": {"unofficial": [NOT_ALL]},
        "dataset": {"count": 500, "used": 500},
    },
    "digits": {
        "rules": {"unofficial": ["the model is digits, not ResNet-50 v1.5"]},
        "model": {"name": "resnet50_digits", "network": None},
    },
    "random weights": {
        "rules": {"unofficial": ["the weights are random"]},
        "model": {"weights": "random"},
        "found": 0.1,
    },
}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"source": {"md5": "1" * 32}}, "the weights are not MLPerf's: the file's md5 is 1111"),
        ({"source": None}, "it is not known which file the weights are from"),
        (
            {"recipe": {"conversion": {"precision": "int8", "calibration": {"count": 500}}}},
            "int8 was not calibrated with images of one of MLPerf's two lists",
        ),
    ],
)
def test_closed_wants_mlperf_s_own_weights(local, tmp_path, model, reason):
    save_runs(local, scenarios=["Offline"], model=model)
    with pytest.raises(UserError, match=reason):
        write(local, tmp_path / "tree")
    _, benchmark = write(local, tmp_path / "tree", "open")
    assert "Not a result" not in (benchmark / "Offline" / "README.md").read_text()


def save_unofficial(local, name):
    changes = dict(UNOFFICIAL[name])
    (reason,) = changes.pop("rules")["unofficial"]
    found = changes.pop("found", 76.456)
    save_runs(local, scenarios=["Offline"], reasons=[reason], **changes)
    entry = local / "experiment" / "submission"
    accuracy = {"top1_percent": found}
    save_run(entry, "Offline", "accuracy", 1, reasons=[reason], accuracy=accuracy, **changes)
    return reason


@pytest.mark.parametrize("name", UNOFFICIAL)
def test_closed_refuses_what_is_no_result(local, tmp_path, name):
    reason = save_unofficial(local, name)
    with pytest.raises(UserError) as refused:
        write(local, tmp_path / "tree")
    assert reason in str(refused.value)
    assert "--division=open" in str(refused.value)
    for quoted, of in (
        ("accuracy samples: 500, dataset size: 50000", "500 images"),
        ("accuracy not met: expected=75.695400, found=0.100", "random weights"),
    ):
        assert (quoted in str(refused.value)) == (name == of)
    assert not list(tmp_path.glob("tree*"))


@pytest.mark.parametrize("name", UNOFFICIAL)
def test_open_labels_what_is_no_result(local, tmp_path, name):
    reason = save_unofficial(local, name)
    _, benchmark = write(local, tmp_path / "tree", "open")
    readme = (benchmark / "Offline" / "README.md").read_text()
    assert "Not a result by MLPerf's rules" in readme
    assert reason in readme
    acme = tmp_path / "tree" / "open" / "Acme"
    (system,) = (acme / "systems").iterdir()
    assert reason in json.loads(system.read_text())["sw_notes"]
    mapping = json.loads((acme / "model_mapping.json").read_text())
    assert mapping == {"resnet50_digits" if name == "digits" else "resnet50": "resnet"}


def test_a_rehearsal_is_called_so(local, tmp_path):
    for kind in ("performance", "accuracy"):
        logs = alter_logs("Offline", kind, 2000)
        save_run(local / "experiment" / "submission", "Offline", kind, logs=logs)
    complaints, benchmark = write(local, tmp_path / "tree", "open")
    assert {complaint.kind for complaint in complaints} == {"duration"}
    assert "a rehearsal: runs of 2 s, not of 600 s" in (benchmark / "Offline/README.md").read_text()


def test_what_the_checker_refuses_is_not_written_in_closed(local, tmp_path):
    save_runs(local, scenarios=["Offline", "SingleStream"])
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "old").touch()
    with pytest.raises(UserError, match="the closed division also requires multistream"):
        write(local, tmp_path / "tree")
    assert [path.name for path in (tmp_path / "tree").iterdir()] == ["old"]
    assert not (tmp_path / "tree-originals").exists()


def test_a_log_that_is_gone(local, tmp_path):
    shutil.rmtree(save_runs(local) / "logs")
    with pytest.raises(UserError, match="missing"):
        write(local, tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_a_compliance_test_that_failed(local, tmp_path):
    entry = save_runs(local)
    logs = dict(alter_logs("Offline", "TEST04"))
    summary = logs["mlperf_log_summary.txt"]
    logs["mlperf_log_summary.txt"] = summary.replace(
        b"Samples per second: ", b"Samples per second: 9"
    )
    save_run(entry, "Offline", "TEST04", number=1, logs=logs)
    with pytest.raises(UserError, match=r"Offline: TEST04: .*cached"):
        write(local, tmp_path / "tree")


def test_the_sources_are_those_of_the_commit(repository, local, tmp_path):
    git = ["git", "-C", str(repository), "rev-parse", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("NOT RUN: needs the checkout's git history")
    commit = done.stdout.strip()
    environment = {"repository": {"commit": commit, "clean": False}}
    save_runs(
        local, scenarios=["Offline"], kinds=["performance", "accuracy"], environment=environment
    )
    write(local, tmp_path / "tree", "open")
    sources = tmp_path / "tree" / "open" / "Acme" / "src"
    assert (sources / "ck-mlperf" / "src" / "ck_mlperf" / "common" / "errors.py").is_file()
    said = (sources / "README.md").read_text()
    assert commit in said
    assert "Files differed from the commit" in said


def test_two_trees_are_the_same(trees, local, tmp_path):
    """What a tree holds depends on the records alone."""
    first = trees.make("nothing, open")
    write_tree(tmp_path / "tree", local, "open")
    same = {
        path.relative_to(first): path.read_bytes() for path in first.rglob("*") if path.is_file()
    }
    again = Path(tmp_path / "tree")
    assert same == {
        path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()
    }
