from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.explore.runs import ACCURACY, EXPLORE_RUN, Configuration, Network
from ck_mlperf.explore.sweep import Sweep, read_sweep
from ck_mlperf.loadgen.settings import read_settings


def describe(sweep: Sweep) -> list[tuple[Any, ...]]:
    return [
        (one.scenario, one.batch, one.samples_per_query, one.target_qps)
        for one in sweep.list_configurations()
    ]


def test_the_default_is_one_configuration_of_the_embedded_model() -> None:
    sweep = read_sweep({})
    assert sweep.list_configurations() == [Configuration(Network(), "SingleStream", 1)]
    assert sweep.name == "explore.digits"
    assert [run.mode for run in sweep.list_runs()] == [ACCURACY] + 3 * ["PerformanceOnly"]


def test_configurations() -> None:
    sweep = read_sweep(
        {
            "scenario": "SingleStream,MultiStream,Server,Offline",
            "batch": "1,2,4..8",
            "qps": "100..300:100",
        }
    )
    assert describe(sweep) == [
        ("SingleStream", 1, None, None),
        *[("MultiStream", batch, batch, None) for batch in (1, 2, 4, 8)],
        *[("Server", batch, None, qps) for batch in (1, 2, 4, 8) for qps in (100, 200, 300)],
        *[("Offline", batch, None, None) for batch in (1, 2, 4, 8)],
    ]
    assert sweep.list_notes() == ["SingleStream sends one sample at a time: it has batch 1 only"]


def test_samples_per_query_are_an_axis_of_their_own() -> None:
    sweep = read_sweep({"scenario": "MultiStream", "batch": "4", "samples_per_query": "8,16"})
    assert describe(sweep) == [("MultiStream", 4, 8, None), ("MultiStream", 4, 16, None)]


@pytest.mark.parametrize(
    ("options", "tags"),
    [
        ({}, ["model,onnx,digits"]),
        (
            {"engine": "onnx-cuda", "precision": "fp32,fp16"},
            [
                "model,onnx,digits,converted-from-onnx,fp32,device.cuda",
                "model,onnx,digits,converted-from-onnx,fp16,device.cuda",
            ],
        ),
        (
            {"engine": "tensorrt", "batch": "8,32", "model": "resnet", "precision": "int8"},
            [
                "model,tensorrt,resnet,converted-from-onnx,int8,maxbatch.8",
                "model,tensorrt,resnet,converted-from-onnx,int8,maxbatch.32",
            ],
        ),
        (
            {"engine": "tensorrt"},
            ["model,tensorrt,digits,converted-from-onnx,fp32,maxbatch.32"],
        ),
        (
            {"model": "digits,resnet50+random"},
            ["model,onnx,digits", "model,onnx,resnet50,random"],
        ),
        ({"weights": "model,onnx,mine"}, ["model,onnx,mine"]),
        ({"weights": ["model,onnx,a", "model,onnx,b"]}, ["model,onnx,a", "model,onnx,b"]),
    ],
)
def test_the_weights_of_a_configuration(options: dict[str, Any], tags: list[str]) -> None:
    sweep = read_sweep({"scenario": "Offline", **options})
    assert [one.weights for one in sweep.list_configurations()] == tags


def test_accuracy_is_measured_once_for_each_file_that_is_run() -> None:
    onnx = read_sweep({"scenario": "MultiStream,Offline", "batch": "1,8", "precision": "fp32,fp16"})
    runs = [run for run in onnx.list_runs() if run.mode == ACCURACY]
    assert [(run.configuration.network.precision, run.configuration.batch) for run in runs] == [
        ("fp32", 8),
        ("fp16", 8),
    ]
    plans = read_sweep({"scenario": "Offline", "batch": "1,8", "engine": "tensorrt"})
    runs = [run for run in plans.list_runs() if run.mode == ACCURACY]
    assert [run.configuration.batch for run in runs] == [1, 8]  # a plan for each batch


def test_random_weights_have_no_accuracy() -> None:
    sweep = read_sweep({"model": "digits,resnet50+random", "accuracy": "yes", "repetitions": "1"})
    assert [(run.configuration.network.model, run.mode) for run in sweep.list_runs()] == [
        ("digits", ACCURACY),
        ("digits", "PerformanceOnly"),
        ("resnet50,random", "PerformanceOnly"),
    ]
    assert sweep.list_notes() == ["random weights have no accuracy"]


def test_a_run() -> None:
    sweep = read_sweep(
        {
            "scenario": "Server",
            "batch": "8",
            "qps": "12.5",
            "count": "100",
            "duration": "2.5",
            "env.CK_LOADGEN_BUFFER_SIZE": "500",
            "name": "mine",
        }
    )
    accuracy, performance, second, _ = sweep.list_runs()
    digest, _, repetition = performance.id.partition(".")
    assert (repetition, second.id) == ("r1", f"{digest}.r2")
    assert performance.environment == {
        "CK_BATCH_SIZE": "8",
        "CK_LOADGEN_BUFFER_SIZE": "500",
        "CK_LOADGEN_COUNT_OVERRIDE": "100",
        "CK_LOADGEN_DURATION": "2.5",
        "CK_LOADGEN_MODE": "PerformanceOnly",
        "CK_LOADGEN_SCENARIO": "Server",
        "CK_LOADGEN_TARGET_QPS": "12.5",
        EXPLORE_RUN: performance.id,
    }
    assert "CK_LOADGEN_COUNT_OVERRIDE" not in accuracy.environment
    assert accuracy.id != performance.id
    assert performance.argv[:3] == (
        "ck",
        "benchmark",
        "program:image-classification-tensorrt-loadgen-py",
    )
    for name, value in performance.environment.items():
        assert f"--env.{name}={value}" in performance.argv
    assert "--record_uoa=mine" in performance.argv
    assert read_settings(performance.environment).run == performance.id
    elsewhere = read_sweep({"scenario": "Server", "batch": "8", "qps": "12", "name": "mine"})
    assert elsewhere.list_runs()[1].id != performance.id


def test_images_that_are_named_are_others() -> None:
    uid = "0123456789abcdef"
    free, named = (read_sweep({"images": uid} if uid else {}) for uid in (None, uid))
    for one, other in zip(free.list_runs(), named.list_runs(), strict=True):
        assert set(other.argv) - set(one.argv) >= {f"--deps.images={uid}"}
        assert one.id != other.id
    assert "images" not in free.define()  # a sweep of before there was the option goes on
    assert named.define()["images"] == uid


def test_a_file_does_the_same(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        """
scenario: [MultiStream, Server]
batch: [1, 2, 4..16]
qps: 100.5
model: [digits, "resnet50,random"]
precision: fp16
repetitions: 5
accuracy: no
count: 64
env: {CK_VERBOSE: yes, CK_LOADGEN_BUFFER_SIZE: 100}
"""
    )
    written = read_sweep({"file": str(path)})
    typed = read_sweep(
        {
            "scenario": "MultiStream,Server",
            "batch": "1,2,4..16",
            "qps": "100.5",
            "model": "digits,resnet50+random",
            "precision": "fp16",
            "repetitions": "5",
            "accuracy": "no",
            "count": "64",
            "env.CK_VERBOSE": "yes",
            "env.CK_LOADGEN_BUFFER_SIZE": "100",
        }
    )
    assert written == typed
    assert written.name == "explore.digits.resnet50-random"
    assert read_sweep({"file": str(path), "batch": "3"}).batch == (3,)


def test_the_definition_survives_json(tmp_path: Path) -> None:
    conf = tmp_path / "user.conf"
    conf.write_text("*.Server.min_duration = 1000\n")
    sweep = read_sweep({"scenario": "Server", "qps": "1..3", "env.CK_LOADGEN_CONF_FILE": str(conf)})
    assert json.loads(json.dumps(sweep.define())) == sweep.define()


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        ({"batchs": "1"}, ["batchs: no such option; did you mean batch?"]),
        ({"images": "imagenet"}, ["images: 'imagenet': want 16 hexadecimal digits"]),
        ({"batch": "0"}, ["batch: 0: want whole numbers from 1"]),
        ({"batch": "1.5"}, ["batch: 1.5: want whole numbers"]),
        ({"batch": "1..1000000000000"}, ["more than 1000 values"]),
        ({"batch": None}, ["batch: want text, a number or a list"]),
        ({"batch": [[1]]}, ["batch: want text, a number or a list"]),
        ({"batch": []}, ["batch: a value is missing"]),
        ({"scenario": "Multistream"}, ["scenario: 'Multistream': want", "did you mean MultiStrea"]),
        ({"scenario": "Server", "batch": "70000"}, ["CK_BATCH_SIZE=70000: want a whole number"]),
        ({"precision": "fp64"}, ["precision: 'fp64': want one of fp32, tf32, fp16, int8"]),
        ({"engine": "cuda"}, ["engine: 'cuda': want one of onnx, onnx-cuda, tensorrt"]),
        ({"model": "a b"}, ["want tags, joined with +"]),
        ({"model": "$(id)"}, ["want tags, joined with +"]),
        ({"weights": "model,onnx;x"}, ["want tags"]),
        ({"weights": "model,onnx,fp16,int8"}, ["fp16 and int8: want one precision"]),
        ({"env.CK_BATCHSIZE": "4"}, ["CK_BATCHSIZE: no such variable; did you mean CK_BATCH_S"]),
        ({"weights": "model", "precision": "fp16"}, ["leave out precision"]),
        ({"repetitions": "0"}, ["repetitions: '0': want a whole number, 1 to 1,000"]),
        ({"repetitions": "1,2"}, ["repetitions: want one value, not 2"]),
        ({"accuracy": "maybe"}, ["accuracy: 'maybe': want yes or no"]),
        ({"name": "../x"}, ["name: '../x': want letters"]),
        ({"name": ".cm"}, ["name: '.cm': want letters"]),
        ({"program": "a:b"}, ["program: 'a:b'"]),
        ({"qps": "5"}, ["qps: means something in Server only"]),
        ({"samples_per_query": "5"}, ["samples_per_query: means something in MultiStream only"]),
        ({"count": "many"}, ["CK_LOADGEN_COUNT_OVERRIDE=many: want a whole number"]),
        ({"env.CK_LOADGEN_MODE": "AccuracyOnly"}, ["that is for --accuracy"]),
        ({"env.CK_EXPLORE_RUN": "x"}, ["a sweep names its runs itself"]),
        ({"env.PATH": "x"}, ["want a variable of the program"]),
        ({"env.CK_VERBOSE": "$x"}, ["a character that a shell reads"]),
        ({"env.CK_VERBOSE": ["a"]}, ["env.CK_VERBOSE: want text"]),
        ({"env.CK_LOADGEN_CONF_FILE": "/nowhere"}, ["there is no file /nowhere"]),
        ({"env.CK_LOADGEN_BUFER_SIZE": "1"}, ["did you mean CK_LOADGEN_BUFFER_SIZE?"]),
        (
            {"batch": "1..1000", "scenario": "Offline", "repetitions": "11"},
            ["more than 10,000 runs"],
        ),
        (
            {"batch": "1..1000", "scenario": "Server", "qps": "1..1000", "precision": "fp32,fp16"},
            ["more than 10,000 runs"],
        ),
        (
            {"batch": "x", "scenario": "y", "repetitions": "z"},
            ["3 settings are wrong", "batch:", "scenario:", "repetitions:"],
        ),
        (
            {"scenario": "Offline", "count": "0", "env.CK_LOADGEN_BUFFER_SIZE": "0"},
            ["2 settings are wrong", "CK_LOADGEN_COUNT_OVERRIDE=0", "CK_LOADGEN_BUFFER_SIZE=0"],
        ),
    ],
)
def test_refused(options: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        read_sweep(options)
    for message in messages:
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"batch: [1", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"", "want lines"),
        (b"- batch", "want lines"),
        (b"1: 2", "want lines"),
        (b"env: 3", "env: want names with values"),
        (b"batch: !!python/object/apply:os.system [id]", "is not YAML"),
        (b"batches: 3", "batches: no such option; did you mean batch?"),
        (b"file: other.yaml", "file: no such option"),
        (b"batch: " + 500 * b"[", "is not YAML"),
    ],
)
def test_refused_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)):
        read_sweep({"file": str(path)})
