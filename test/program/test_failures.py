"""What goes wrong is said once, on stderr, with the right exit code, and leaves no result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid

import pytest

pytestmark = pytest.mark.slow

PROGRAM = "program:image-classification-tensorrt-loadgen-py"


def assert_failed(ck, process, *texts: str) -> None:
    assert process.returncode != 0
    for text in texts:
        assert text in process.stderr
    assert process.stderr.count("error:") == 1
    assert "Traceback" not in process.stdout + process.stderr
    assert not (ck.tmp / "record.json").exists()
    assert not list(ck.tmp.glob("mlperf_log_*"))


@pytest.fixture(params=["run", "benchmark"])
def command(request) -> list[str]:
    """`ck run` and `ck benchmark --record` of the program."""
    if request.param == "run":
        return ["run", PROGRAM]
    return ["benchmark", PROGRAM, "--repetitions=1", "--record", "--record_repo=local",
            "--record_uoa=must-not-appear", "--skip_stat_analysis", "--sleep=0"]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_recorded(ck):
    yield
    assert not (ck.experiments / "must-not-appear").exists()


def test_all_bad_settings_are_reported_at_once(ck, command):
    process = ck(*command, "--env.CK_LOADGEN_SCENARIO=Sideways", "--env.CK_BATCH_SIZE=many",
                 "--env.CK_LOADGEN_SCENARO=Offline", "--env.CK_BATCHSIZE=4",
                 "--env.TENSORRT_WORKSPACE=9", "--dep_add_tags.weight=model,onnx,vgg",
                 "--dep_add_tag.weights=model,onnx,vgg", "--deps.image=x", "--recrod",
                 code=2)  # fmt: skip
    assert_failed(ck, process, "Sideways", "many", "CK_LOADGEN_SCENARO", "CK_LOADGEN_SCENARIO",
                  "CK_BATCHSIZE: no such variable; did you mean CK_BATCH_SIZE?",
                  "did you mean TENSORRT_WORKSPACE_MIB?",
                  "--dep_add_tags.weight: no such dependency; did you mean weights?",
                  "did you mean --dep_add_tags.weights?",
                  "--deps.image: no such dependency; did you mean images?",
                  "--recrod: no such option; did you mean --record?")  # fmt: skip


@pytest.mark.parametrize(
    "variable", ["CK_LOADGEN_CONF_FILE=$(touch hacked)", "CK_$(touch hacked)=1", "X=`touch hacked`"]
)
def test_a_variable_that_bash_would_read_is_refused(ck, command, variable):
    process = ck(*command, f"--env.{variable}", code=2)
    assert_failed(ck, process, "cannot pass these variables on", variable)
    assert not (ck.tmp / "hacked").exists()


def test_a_recording_that_cannot_be_written_is_refused_before_the_run(ck):
    record = ["benchmark", PROGRAM, "--record", "--record_repo=local", "--sleep=0"]
    assert_failed(ck, ck(*record, code=2), "--record_uoa=NAME")
    notes = ck.experiments / "my-notes" / "precious.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    process = ck(*record, "--record_uoa=my-notes", code=2)
    assert_failed(ck, process, "cannot record into the experiment my-notes")
    assert notes.exists()


def test_more_images_than_there_are(ck, command):
    process = ck(*command, "--env.CK_LOADGEN_DATASET_SIZE=501", code=2)
    assert_failed(ck, process, "501", "500")


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("model,onnx,resnet51", "none has resnet51; did you mean resnet50?"),
        ("model,onnx,digits,fp16,int8", "fp16 and int8: want one precision, not several"),
    ],
)
def test_tags_that_no_model_has(ck, command, tags, wanted):
    assert_failed(ck, ck(*command, f"--dep_add_tags.weights={tags}", code=2), wanted)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("run program:misspelt", 1, "CK error: [program] no program(s) found!"),
        ("benchmark program:misspelt", 1, "no programs found for this pipeline!"),
        ("install package:misspelt --quiet", 16, "can't find path to CK entry"),
        (
            "install package --tags=model,onnx,resnet51 --quiet",
            16,
            'CK error: [package] package with tags "model,onnx,resnet51" for your environment was '
            "not found!!",
        ),
        (
            "install package --tags=model,tensorrt,digits,converted-from-onnx,fp16,int8 --quiet",
            1,
            "contradiction on variable (ML_MODEL_DATA_TYPE) detected when adding",
        ),
    ],
)
def test_what_ck_says_by_itself(ck, words, code, said):
    """docs/troubleshooting.md quotes it."""
    process = ck(*words.split(), code=code)
    assert said in process.stdout
    assert "Traceback" not in process.stdout + process.stderr


def test_an_installation_refuses_variables_that_it_does_not_read(ck):
    process = ck("install", "package:model-onnx-digits", "--env.CK_BATCHSIZE=4", "--quiet", code=2)
    assert "CK_BATCHSIZE: no package reads such a variable" in process.stderr


def digits_with(ck, folder, change) -> str:
    """Register the digits network with something changed; returns the flag that asks for it."""
    import onnx

    package = ck.root / "package" / "model-onnx-digits"
    model = onnx.load(package / "digits.onnx")
    change(model)
    name = f"changed-{uuid.uuid4().hex[:8]}"
    onnx.save(model, folder / f"{name}.onnx")
    stated = json.loads((package / "digits.json").read_text())
    stated.pop("max_batch")
    (folder / f"{name}.json").write_text(json.dumps(stated | {"name": name}))
    ck("detect", "soft:model.onnx", f"--full_path={folder / name}.onnx")
    return f"--dep_add_tags.weights=model,onnx,{name}"


def append_node(op: str, name: str, **attributes):
    """A change: put one more node before the output."""
    import onnx

    def change(model):
        output = model.graph.output[0].name
        for node in model.graph.node:
            node.output[:] = ["inner" if o == output else o for o in node.output]
        model.graph.node.append(onnx.helper.make_node(op, ["inner"], [output], name, **attributes))

    return change


def test_scores_that_are_no_numbers(ck, command, tmp_path):
    flag = digits_with(ck, tmp_path, append_node("Sqrt", "root"))
    process = ck(*command, flag, code=2, timeout=60)
    assert_failed(ck, process, "onnxruntime-cpu", "not a finite number")


def test_engine_that_throws_within_loadgen(ck, command, tmp_path):
    """The network works on the black image that warms it up, and on no other."""
    import onnx

    def change(model):
        graph = model.graph
        output = graph.output[0].name
        for node in graph.node:
            node.output[:] = ["scores_" if o == output else o for o in node.output]
        nodes = [
            ("Relu", [graph.input[0].name], "bright", {}),
            ("Add", ["bright", "bright"], "brighter", {}),
            ("ReduceMax", ["brighter"], "brightest", {"keepdims": 0}),
            ("Cast", ["brightest"], "index", {"to": onnx.TensorProto.INT64}),
            ("Gather", ["one", "index"], "picked", {}),
            ("Add", ["scores_", "picked"], output, {}),
        ]
        for op, inputs, result, attributes in nodes:
            graph.node.append(onnx.helper.make_node(op, inputs, [result], result, **attributes))
        one = onnx.helper.make_tensor("one", onnx.TensorProto.FLOAT, [1], [0.0])
        graph.initializer.append(one)

    flag = digits_with(ck, tmp_path, change)
    process = ck(*command, flag, code=2, timeout=60)
    assert_failed(ck, process, "ONNX Runtime", "Gather")


def test_batch_larger_than_the_model_takes(ck, command, tmp_path):
    def change(model):
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1

    flag = digits_with(ck, tmp_path, change)
    process = ck(*command, flag, "--env.CK_BATCH_SIZE=2",
                 "--env.CK_LOADGEN_SCENARIO=Offline", code=2)  # fmt: skip
    assert_failed(ck, process, "CK_BATCH_SIZE")


def test_two_models_that_fit_are_not_chosen_between(ck, tmp_path):
    flags = [digits_with(ck, tmp_path, lambda model: None) for _ in range(2)]
    ck("run", PROGRAM, flags[0])
    process = ck("run", PROGRAM, "--dep_add_tags.weights=model,onnx,trained", code=2)
    assert "more than one thing" in process.stderr
    for flag in flags:
        assert flag.rpartition(",")[2] in process.stderr


def test_model_that_changed_after_it_was_registered(ck, command, tmp_path):
    flag = digits_with(ck, tmp_path, lambda model: None)
    with next(tmp_path.glob("*.onnx")).open("ab") as file:
        file.write(b"\x00")
    assert_failed(ck, ck(*command, flag, code=2), "has changed since it was registered")


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html></html>", b"\x08\x07garbage", b""])
def test_detecting_what_is_no_model(ck, tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    process = ck("detect", "soft:model.onnx", f"--full_path={tmp_path / 'model.onnx'}", code=2)
    assert str(tmp_path / "model.onnx") in process.stderr


def test_detecting_images_without_labels(ck, tmp_path):
    (tmp_path / "a.JPEG").write_bytes(b"")
    process = ck("detect", "soft:dataset.imagenet.val", f"--full_path={tmp_path}", code=2)
    assert "val_map.txt" in process.stderr
    (tmp_path / "val_map.txt").write_text("a.JPEG 1\nb.JPEG 2\n")
    process = ck("detect", "soft:dataset.imagenet.val", f"--full_path={tmp_path}", code=2)
    assert "b.JPEG" in process.stderr


def test_corrupt_image_in_an_installed_set(ck, tmp_path):
    import cv2
    import numpy as np

    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((50, 60, 3), 7, np.uint8))
    (tmp_path / "b.png").write_bytes(b"not an image")
    (tmp_path / "val_map.txt").write_text("a.png 1\nb.png 2\nc.png 3\n")
    ck("detect", "soft:dataset.imagenet.val", f"--full_path={tmp_path}")
    install = ["install", "package", "--tags=dataset,imagenet,preprocessed,side.96", "--quiet"]
    try:
        process = ck(*install, code=2)
        assert "b.png" in process.stderr
        cv2.imwrite(str(tmp_path / "b.png"), np.full((50, 60, 3), 7, np.uint8))
        ck(*install)
    finally:
        ck("rm", "env:*", "--tags=dataset,imagenet", "--force", code=None)


def test_tools_folder_that_cannot_be_written(ck, tmp_path, command):
    blocked = tmp_path / "tools"
    blocked.write_text("a file where a folder should be")
    process = ck(
        "install", "package:model-onnx-digits", "--quiet", code=None, CK_TOOLS=str(blocked)
    )
    assert process.returncode != 0
    assert str(blocked) in process.stderr
    assert "Traceback" not in process.stdout + process.stderr


def test_kill_in_the_middle_of_an_install(own_ck):
    install = ["ck", "install", "package", "--tags=dataset,digits,preprocessed,side.28", "--quiet"]
    for pause in (0.5, 1.5, 2.5):
        process = subprocess.Popen(install, env=own_ck.environment, cwd=own_ck.root,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   start_new_session=True)  # fmt: skip
        time.sleep(pause)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    own_ck("run", PROGRAM)
    record = json.loads((own_ck.tmp / "record.json").read_text())
    assert record["accuracy"]["total"] == 500


def test_kill_of_the_program_leaves_no_result(ck):
    process = subprocess.Popen(
        ["ck", "run", PROGRAM, "--env.CK_LOADGEN_MODE=PerformanceOnly",
         "--env.CK_LOADGEN_DURATION=60"],
        env=ck.environment, cwd=ck.root, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(ck.tmp.glob(".loadgen-unfinished-*/mlperf_log_detail.txt")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # Of its own session only: other tests run the program at the same time.
    session = str(process.pid)
    subprocess.run(["pkill", "-KILL", "-s", session, "-f", "run.py job.json"], check=True)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "killed" in stderr
    assert not (ck.tmp / "record.json").exists()
    assert not list(ck.tmp.glob("mlperf_log_*"))
