"""The one list of engines."""

from __future__ import annotations

import importlib

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.engines import registry
from ck_mlperf.loadgen.engines.base import Engine
from ck_mlperf.loadgen.engines.registry import ENGINES, EngineEntry, choose_engine, find_by_name


@pytest.mark.parametrize("kind", ENGINES)
def test_an_entry_names_an_engine(kind):
    module, _, name = ENGINES[kind].implementation.partition(":")
    engine = getattr(importlib.import_module(f"ck_mlperf.loadgen.engines.{module}"), name)
    assert issubclass(engine, Engine)


@pytest.mark.parametrize(
    ("model", "tags", "kind"),
    [
        ("onnx", {"model", "onnx", "digits"}, "onnx"),
        ("onnx", {"model", "onnx", "device.cuda"}, "onnx-cuda"),
        ("tensorrt", {"model", "tensorrt"}, "tensorrt"),
        ("tensorrt", {"model", "tensorrt", "device.cuda"}, "tensorrt"),
    ],
)
def test_tags_choose_the_engine(model, tags, kind):
    assert choose_engine(model, tags).kind == kind


def test_two_engines_are_not_chosen_between(monkeypatch):
    other = EngineEntry("other", "other:Other", "other", "", "onnx", tag="device.other")
    monkeypatch.setitem(registry.ENGINES, "other", other)
    assert choose_engine("onnx", {"device.other"}) == other
    with pytest.raises(UserError, match=r"device\.cuda and device\.other: want one engine"):
        choose_engine("onnx", {"device.cuda", "device.other"})


def test_a_record_names_its_engine():
    assert find_by_name("tensorrt-rtx") == ENGINES["tensorrt"]
    assert find_by_name("onnxruntime-cuda") == ENGINES["onnx-cuda"]
    assert find_by_name("an engine of 2030") is None
