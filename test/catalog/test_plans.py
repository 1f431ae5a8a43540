"""What tags ask for, and which TensorRT they get; `test/package/` builds plans by them."""

from __future__ import annotations

import dataclasses

import pytest

from ck_mlperf.catalog import kernel, plans

H200 = {"name": "NVIDIA H200", "compute_capability": "9.0"}
GTX_1080 = {"name": "NVIDIA GeForce GTX 1080", "compute_capability": "6.1"}
RTX_4090 = {"name": "NVIDIA GeForce RTX 4090", "compute_capability": "8.9"}
BOTH = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt-10": "tensorrt"}
RTX = {"tensorrt-rtx": "tensorrt_rtx"}


def read(tags: str, **others):
    return plans.read_request(set(tags.split(",")), **others)


def test_the_tags_of_2019():
    request = read("model,tensorrt,resnet,converted-from-onnx,fp32,maxbatch.32")
    assert request == plans.Request(
        frozenset({"resnet"}), "fp32", "uint8", "class", max_batch=32, flavour=None
    )
    assert request.plan_tags("tensorrt-10") == {
        "model", "tensorrt", "image-classification", "converted-from-onnx", "resnet", "fp32",
        "maxbatch.32", "input.uint8", "output.class", "tensorrt-10",
    }  # fmt: skip


def test_defaults_and_other_models():
    request = read("model,tensorrt")
    assert (request.source, request.precision, request.max_batch) == ({"digits"}, "fp32", 1)
    assert read("model,tensorrt", max_batch=8).max_batch == 8
    assert read("model,tensorrt,maxbatch.2", max_batch=8).max_batch == 2
    request = read("model,tensorrt,squeezenet1_1,trained,int8,maxbatch.200,tensorrt-8,input.fp32")
    assert request.source == {"squeezenet1_1", "trained"}
    assert (request.precision, request.max_batch) == ("int8", 200)
    assert (request.flavour, request.input) == ("tensorrt-8", "fp32")


def test_tf32_takes_the_file_of_fp32():
    tags = read("model,tensorrt,digits,tf32").conversion_tags()
    assert "fp32" in tags
    assert "tf32" not in tags
    assert {"model", "onnx", "converted-from-onnx", "digits"} <= tags


@pytest.mark.parametrize(
    ("tags", "samples"),
    [
        ("fp32", "uint8"),
        ("int8", "uint8"),
        ("int8,input.int8", "int8"),
        ("fp16,input.fp16", "fp16"),
        ("int8,input.fp32", "fp32"),
        ("fp16,input.uint8", "uint8"),
    ],
)
def test_what_samples_are_is_the_plans_and_not_the_files(tags, samples):
    """Images are prepared before the plan, of what its first layer computes in."""
    request = read(f"model,tensorrt,digits,{tags}")
    assert request.input == samples
    assert [tag for tag in request.plan_tags(None) - {None} if tag.startswith("input.")] == [
        f"input.{samples}"
    ]
    conversion = request.for_conversion()
    of_file = "input.fp32" if samples == "fp32" else "input.native"
    assert {t for t in conversion.conversion_tags() if t.startswith("input.")} == {of_file}
    assert dataclasses.replace(conversion, input=samples) == request


@pytest.mark.parametrize(
    ("precision", "samples"),
    [("fp16", "int8"), ("fp32", "int8"), ("int8", "fp16"), ("tf32", "fp16")],
)
def test_samples_of_another_precision(precision, samples, capsys):
    with pytest.raises(SystemExit) as ended:
        read(f"model,tensorrt,digits,{precision},input.{samples}")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(
        f"error: input.{samples} is the input of a plan in {samples}, and {precision} was asked for"
    )


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (
            "model,tensorrt,digits,input.native",
            "input.native: the input of a plan is input.uint8 or input.int8 or input.fp16 or "
            "input.fp32",
        ),
        (
            "model,onnx,converted-from-onnx,digits,fp16,input.fp16",
            "input.fp16: the input of a converted file is input.uint8 or input.fp32 or "
            "input.native",
        ),
        (
            "model,tensorrt,digits,input.uint16",
            "input.uint16: the input of a plan is input.uint8 or input.int8 or input.fp16 or "
            "input.fp32",
        ),
    ],
)
def test_an_input_that_there_is_not(tags, message, capsys):
    with pytest.raises(SystemExit) as ended:
        read(tags)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_the_question_about_a_plan_has_all_that_was_asked_of_its_build():
    told = {
        "TENSORRT_AUX_STREAMS": "0",
        "TENSORRT_BUILDER_LEVEL": "4",
        "TENSORRT_TILING_LEVEL": "2",
        "TENSORRT_OPT_BATCH_SIZE": "",
        "CALIBRATION_COUNT": "12",
    }
    entry = {
        "meta": {
            "tags": ["model", "tensorrt", "tensorrt-10", "digits"],
            "deps": {"converted": {"dict": {"customize": {"full_path": "m.onnx"}}}},
            "customize": {
                "full_path": "m.plan",
                "recipe": {"sha256": "a" * 64},
                "install_env": told,
            },
        }
    }
    request = read("model,tensorrt,digits,int8,input.int8,maxbatch.8")
    assert plans.describe_plan(entry, request) == {
        "plan": "m.plan",
        "model": "m.onnx",
        "plan_sha256": "a" * 64,
        "onnx_sha256": None,
        "precision": "int8",
        "input": "int8",
        "max_batch": 8,
        "flavour": "tensorrt",
        "major": "10",
        "whole": False,
        "aux_streams": "0",
        "builder_level": "4",
        "tiling_level": "2",
    }


def test_tags_of_cks_own_are_not_the_models():
    entry = {"meta": {"tags": ["model", "onnx", "image-classification", "resnet", "trained",
                               "host-os-linux-64", "target-os-linux-64", "64bits", "v0",
                               "v5.12"]}}  # fmt: skip
    assert plans.source_tags(entry) == {"resnet", "trained"}


@pytest.mark.parametrize(
    "tags",
    ["fp32,fp16", "input.fp32,input.uint8", "output.class,output.scores", "maxbatch.1,maxbatch.2",
     "tensorrt-8,tensorrt-rtx", "maxbatch.0", "maxbatch.", "maxbatch.-1", "maxbatch.1.5"],
)  # fmt: skip
def test_tags_that_contradict_each_other(tags, capsys):
    with pytest.raises(SystemExit) as ended:
        read(f"model,tensorrt,digits,{tags}")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("asked", "installed", "gpus", "chosen"),
    [
        (None, RTX, [], "tensorrt-rtx"),
        (None, RTX, [RTX_4090], "tensorrt-rtx"),
        (None, {"tensorrt-8": "tensorrt"}, [GTX_1080], "tensorrt-8"),
        (None, {"tensorrt-11": "tensorrt"}, [], "tensorrt-11"),
        # The one that runs here.
        (None, BOTH, [H200], "tensorrt-10"),
        # None installed: the one that pip gets and that runs here.
        (None, {}, [], "tensorrt-rtx"),
        (None, {}, [RTX_4090], "tensorrt-rtx"),
        (None, {}, [H200], "tensorrt"),
        # Never another than asked for.
        ("tensorrt-rtx", BOTH, [H200], "tensorrt-rtx"),
        ("tensorrt-8", BOTH, [], "tensorrt-8"),
        ("tensorrt-10", {}, [RTX_4090], "tensorrt-10"),
    ],
)
def test_the_flavour_that_is_taken(asked, installed, gpus, chosen):
    assert plans.choose_flavour(asked, installed, gpus) == chosen


@pytest.mark.parametrize(
    ("installed", "gpus", "words"),
    [
        (BOTH, [], ["tensorrt-10", "tensorrt-rtx", "add one of these tags"]),
        (BOTH, [RTX_4090], ["tensorrt-10", "tensorrt-rtx"]),
        ({"tensorrt-8": "tensorrt", "tensorrt-10": "tensorrt"}, [H200], ["tensorrt-8"]),
        (RTX, [H200], ["NVIDIA H200", "9.0", "lib,python-package,tensorrt", "device.cuda"]),
        (RTX, [GTX_1080], ["GTX 1080", "6.1"]),
    ],
)
def test_a_flavour_is_not_chosen_by_guessing(installed, gpus, words, capsys):
    with pytest.raises(SystemExit) as ended:
        plans.choose_flavour(None, installed, gpus)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said


@pytest.fixture
def asked(monkeypatch):
    """The questions that are put to the helper; it answers that there are two TensorRTs."""
    questions = []

    def ask(python, question):
        questions.append(question)
        plans = [{"faults": []} if plan["plan"] == "good" else {"error": "no GPU does"}
                 for plan in question["plans"]]  # fmt: skip
        found = [["/8", "tensorrt", "8.6.1"], ["/rtx", "tensorrt_rtx", "1.7.1"]]
        return {"found": found, "gpus": [H200], "has_driver": True, "plans": plans}

    monkeypatch.setattr(plans, "SURVEYS", {})
    monkeypatch.setattr(plans, "list_sites", lambda ck: ck["sites"])
    monkeypatch.setattr(plans, "ask_helper", ask)
    return questions


def test_one_process_tells_all_and_gpus_are_asked_once(asked):
    ck, plans = {"sites": ["/8"]}, [{"plan": "good"}, {"plan": "bad"}]
    host = plans.survey_host(ck, "python", plans)
    assert host.installed == {"tensorrt-8": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
    assert list(host.judged.values()) == [{"faults": []}, {"error": "no GPU does"}]
    assert plans.survey_host(ck, "python") is host
    assert plans.survey_host(ck, "python", plans[1:]) is host
    assert asked == [{"sites": ["/8"], "gpus": None, "plans": plans}]
    # Another plan, and then another TensorRT, which was installed meanwhile.
    plans.survey_host(ck, "python", [{"plan": "other"}])
    plans.survey_host({"sites": ["/8", "/10"]}, "python")
    assert asked[1:] == [
        {"sites": ["/8"], "gpus": [H200], "plans": [{"plan": "other"}]},
        {"sites": ["/8", "/10"], "gpus": [H200], "plans": []},
    ]


def test_a_plan_that_was_built_again_is_asked_about_again(asked, monkeypatch):
    """A benchmark runs several times in one process."""
    ck, plan = {"sites": []}, {"plan": "bad"}
    host = plans.survey_host(ck, "python", [plan])
    monkeypatch.setattr(plans, "find_plan", lambda *_: (None, ["it is stale"]))
    monkeypatch.setattr(plans, "check_sources", lambda *_: None)
    monkeypatch.setattr(plans.resolve, "load_package", lambda *_: {})
    monkeypatch.setattr(plans.resolve, "install", lambda *_: "entry")
    assert plans.obtain_plan(ck, read("model,tensorrt"), "tensorrt-8", host) == "entry"
    plans.survey_host(ck, "python", [plan])
    assert [question["plans"] for question in asked] == [[plan], [plan]]


def test_a_helper_that_cannot_ends_the_command(monkeypatch, tmp_path, capfd):
    import sys

    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho '\"compute_cap\" is not a valid field'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    (tmp_path / "libnvidia-ml.so.1").touch()  # the loader refuses it
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        plans.ask_helper(sys.executable, {})
    assert ended.value.code == 2
    assert "error: this nvidia-smi does not tell" in capfd.readouterr().err


def test_a_conversion_of_another_file_is_not_taken(monkeypatch):
    source = {"meta": {"customize": {"recipe": {"sha256": "a" * 64}}}}
    right = {"source_sha256": "a" * 64, "precision": "fp16"}
    assert plans.judge_conversion(None, right, source) == []
    (reason,) = plans.judge_conversion(None, right | {"source_sha256": "b" * 64}, source)
    assert "source_sha256" in reason
    assert "aaaa" in reason
    assert "bbbb" in reason


def test_helpers_are_found_with_what_they_use():
    kernel.import_helper("tensorrt")
    import ck_mlperf.tensorrt.flavour

    assert plans.RTX.replace("-", "_") in ck_mlperf.tensorrt.flavour.FLAVOURS
