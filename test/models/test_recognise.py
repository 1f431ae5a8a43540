"""Which network a graph is, whatever it is called."""

from __future__ import annotations

import json
import shutil

import onnx
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file
from ck_mlperf.models.convert import convert
from ck_mlperf.models.recipe import ModelRecipe, load_model_recipe
from ck_mlperf.models.recognise import NETWORKS, RESNET50_V1, RESNET50_V1_5, recognise

from ..builders.real_run import MODEL as DIGITS
from ..builders.resnet50 import STAGES, ResNet50


@pytest.mark.parametrize(
    ("changes", "network"),
    [
        ({}, RESNET50_V1_5),
        ({"strides_in": "1x1"}, RESNET50_V1),
        ({"is_tensorflow": True, "classes": 1001}, RESNET50_V1_5),
        ({"is_tensorflow": True, "strides_in": "1x1"}, RESNET50_V1),
        ({"classes": 10}, None),  # digits
        ({"stages": ((3, 64, 1), (4, 128, 2), (23, 256, 2), (3, 512, 2))}, None),  # ResNet-101
        ({"stages": ((2, 64, 1), *STAGES[1:])}, None),  # pruned by a block
        ({"stages": (*STAGES[:3], (3, 256, 2))}, None),  # narrower
        ({"stages": (*STAGES[:3], (3, 512, 1))}, None),  # without the last stride
        ({"groups": 32}, None),  # ResNeXt
    ],
)
def test_the_structure_decides(changes, network):
    made = type("Made", (ResNet50,), changes)()
    for output in made.outputs:
        assert recognise(made.graph, output) == network


def test_a_block_without_its_skip_connection():
    class Made(ResNet50):
        def block(self, x, cin, width, stride, is_first):
            y = super().block(x, cin, width, stride, is_first)
            if not is_first:  # adds what the 3x3 read
                self.nodes[-2].input[1] = self.nodes[-5].output[0]
            return y

    made = Made()
    assert recognise(made.graph, made.outputs[0]) is None


def test_a_graph_with_a_circle():
    made = ResNet50()
    made.nodes[0].input[0] = made.nodes[3].output[0]
    graph = onnx.helper.make_graph(made.nodes, "circle", [], [], made.weights)
    assert recognise(graph, made.outputs[0]) is None


def test_no_name_makes_a_network(tmp_path):
    """The digits' network, called ResNet-50."""
    model = tmp_path / "resnet50_digits.onnx"
    shutil.copyfile(DIGITS, model)
    recipe = json.loads(DIGITS.with_suffix(".json").read_text())
    stated = model.with_suffix(".json")
    stated.write_text(json.dumps(recipe | {"name": "resnet50_digits"}))
    assert load_model_recipe(model).network is None
    stated.write_text(json.dumps(recipe | {"network": RESNET50_V1_5}))
    with pytest.raises(UserError, match=r"says network = 'resnet50-v1\.5', but .* says None"):
        load_model_recipe(model)
    stated.write_text(json.dumps(recipe | {"source_md5": "0" * 32}))
    with pytest.raises(UserError, match="source_md5"):
        load_model_recipe(model)


def test_a_converted_file_is_its_source(source, tmp_path, monkeypatch):
    """What is known of the source travels in the recipe, to the plan's sidecar and to the job."""
    for network in (*NETWORKS, None):
        monkeypatch.setattr(
            "ck_mlperf.models.onnx_facts.recognise", lambda graph, output, found=network: found
        )
        made = convert(source, tmp_path / "made.onnx", "fp16")
        assert (made.network, made.source_md5) == (network, hash_file(source, "md5"))
        monkeypatch.undo()
        assert load_model_recipe(tmp_path / "made.onnx") == made
        assert ModelRecipe.from_dict(json.loads(json.dumps(made.to_dict()))) == made
