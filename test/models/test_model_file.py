"""The sha256 of a model is of all that it computes with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file
from ck_mlperf.common.processes import module_command
from ck_mlperf.loadgen.engines import make_engine
from ck_mlperf.models.convert import convert
from ck_mlperf.models.model_file import (
    combine_hashes,
    hash_model,
    is_in_state,
    may_have_external_data,
    read_states,
)
from ck_mlperf.models.onnx_facts import external_files

DIGITS = Path(__file__).parents[2] / "package" / "model-onnx-digits" / "digits.onnx"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The digits network with its weights in another file."""
    path = tmp_path / "digits.onnx"
    onnx.save(
        onnx.load(DIGITS), path, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    path.with_suffix(".json").write_text(DIGITS.with_suffix(".json").read_text())
    return path


def shuffle(path: Path) -> None:
    weights = np.fromfile(path, np.float32)
    np.random.default_rng(0).shuffle(weights)
    weights.tofile(path)


def inspect(path: Path) -> dict:
    command, environment = module_command("ck_mlperf.models.recipe", str(path))
    process = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(process.stdout)


def test_shuffled_weights_have_another_hash(model: Path) -> None:
    before, state = inspect(model), read_states(model, ["w.bin"])
    assert before["external_files"] == ["w.bin"]
    assert before["sha256"] == hash_model(model, ["w.bin"]) != hash_file(model)
    shuffle(model.with_name("w.bin"))
    assert inspect(model)["sha256"] != before["sha256"]
    assert read_states(model, ["w.bin"]) != state


def test_a_link_to_a_model_has_the_weights_beside_the_model(model: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "digits.onnx"
    link.parent.mkdir()
    link.symlink_to(model)
    link.with_suffix(".json").symlink_to(model.with_suffix(".json"))
    link.with_name("w.bin").write_bytes(b"another model's")
    assert inspect(link)["sha256"] == inspect(model)["sha256"]
    state = read_states(link, ["w.bin"])
    shuffle(model.with_name("w.bin"))
    assert not is_in_state(link, state)


def test_the_state_that_is_noted_is_that_before_the_files_were_read(model: Path) -> None:
    files = inspect(model)["files"]
    assert is_in_state(model, files)
    assert [name for name, *_ in files] == ["", "w.bin"]
    model.with_name("w.bin").unlink()
    assert not is_in_state(model, files)


def test_weights_of_functions_count(model: Path) -> None:
    """ONNX Runtime loads them, too."""
    loaded = onnx.load(DIGITS)
    tensor = loaded.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "inner.bin")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    opsets = [onnx.helper.make_opsetid("", 13)]
    function = onnx.helper.make_function("own", "F", [], ["c"], [constant], opsets)
    del loaded.graph.initializer[0]
    loaded.functions.append(function)
    assert external_files(loaded) == ["inner.bin"]


def test_a_model_without_external_data_is_told_by_its_bytes(model: Path) -> None:
    assert may_have_external_data(model)
    assert not may_have_external_data(DIGITS)


def test_a_model_in_one_file_keeps_the_hash_of_that_file() -> None:
    assert inspect(DIGITS)["sha256"] == hash_model(DIGITS) == hash_file(DIGITS)
    assert "external_files" not in inspect(DIGITS)


def test_the_names_and_the_order_count(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    path = tmp_path / "model.onnx"
    one = combine_hashes("0", path, ["a", "b"])
    assert one == combine_hashes("0", path, ["b", "a"])
    (tmp_path / "a").write_text("b")
    (tmp_path / "b").write_text("a")
    assert one != combine_hashes("0", path, ["a", "b"])


def test_what_is_converted_names_all_of_its_source(model: Path, tmp_path: Path) -> None:
    made = convert(model, tmp_path / "made.onnx", "fp32")
    assert made.conversion is not None
    assert made.conversion["source_sha256"] == hash_model(model, ["w.bin"])


def test_a_source_that_changes_meanwhile_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ck_mlperf.models import convert as module

    compose = module.compose

    def shuffle_and_compose(*arguments):
        shuffle(model.with_name("w.bin"))
        return compose(*arguments)

    monkeypatch.setattr(module, "compose", shuffle_and_compose)
    with pytest.raises(UserError, match="has changed while it was converted"):
        convert(model, tmp_path / "made.onnx", "fp32")
    assert not (tmp_path / "made.onnx").exists()


def test_the_engine_reads_what_it_says(model: Path) -> None:
    with make_engine("onnx", model) as engine:
        assert engine.model_sha256 == hash_file(model)
        images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), np.uint8)
        engine.load(images)
        engine.enqueue([0, 1, 2, 3])
        labels = engine.collect().copy()
    with make_engine("onnx", DIGITS) as engine:
        engine.load(images)
        engine.enqueue([0, 1, 2, 3])
        assert (engine.collect() == labels).all()


@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_external_data_that_is_not_there(model: Path, damage: str) -> None:
    weights = model.with_name("w.bin")
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="digits"), make_engine("onnx", model) as engine:
        assert engine
