"""Models as they come."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ck_mlperf.common.errors import UserError
from ck_mlperf.models import network as network_module
from ck_mlperf.models.precisions import FILE_PRECISIONS
from ck_mlperf.models.recipe import load_model_recipe

from ..builders.networks import (
    CLASSES,
    FLOAT,
    SIDE,
    draw_images,
    kinds,
    make_network,
    node,
    run,
    save_network,
    write_recipe,
)

pytestmark = pytest.mark.slow  # nothing in it depends on the version of Python


@pytest.mark.parametrize("wanted", FILE_PRECISIONS)
def test_a_model_may_use_any_names(tmp_path, make, wanted):
    """Those of the result, and those that are made on the way."""
    network = make_network()
    names = {
        "images": "class",
        "scores": "scores",
        "w1": "preprocess.cast",
        "b1": "preprocess.mean",
        "c1": "class.network",
        "r1": "x",
        "w2": "x.scale",
        "c2": "x_scale",
        "n2": "x.int8",
        "sum": "x_cast_to_fp32",
        "r2": "pooled",
        "pooled": "pooled_cast_to_fp16",
        "w3": "answer.argmax",
        "b3": "graph_input_cast_0",
    }
    for one in network.nodes:
        one.input[:] = [names.get(name, name) for name in one.input]
        one.output[:] = [names.get(name, name) for name in one.output]
    network.weights = {names.get(name, name): value for name, value in network.weights.items()}
    network.input = "class"
    # LRN stays in float32: casts around it.
    network.nodes[5:6] = [node("LRN", "x_cast_to_fp32", "pooled", size=3)]
    source = save_network(tmp_path / "small.onnx", network)
    made = make(source, wanted)
    images = draw_images(64)
    assert (run(made, images) == run(source, images).argmax(axis=1)).mean() >= 0.9
    assert load_model_recipe(made).output.name == "class"


@pytest.mark.parametrize(("opset", "ir"), [(7, 3), (13, 8), (17, 9), (21, 10)])
def test_opset_and_ir_version_are_the_sources(tmp_path, make, opset, ir):
    """ONNX before IR 4 lists weights as inputs too."""
    network = make_network(opset=opset, ir=ir, weights_are_inputs=ir < 4)
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(16)
    expected = run(source, images).argmax(axis=1)
    for wanted in FILE_PRECISIONS:
        made = make(source, wanted)
        model = onnx.load(made)
        least = 13 if wanted == "int8" else opset
        assert model.opset_import[0].version == max(opset, least)
        assert model.ir_version == max(ir, 7 if least > opset else 4)
        assert (run(made, images) == expected).mean() >= 0.9


def test_an_opset_that_is_too_old(tmp_path, make):
    network = make_network(opset=6, ir=3, weights_are_inputs=True)
    network.nodes[8].attribute.append(helper.make_attribute("broadcast", 1))
    source = save_network(tmp_path / "small.onnx", network)
    with pytest.raises(UserError, match="is in opset 6: too old"):
        make(source)


@pytest.mark.parametrize("batch", ["N", 4])
def test_a_softmax_that_meant_something_else(tmp_path, make, batch):
    """Before opset 13 it worked on all axes from its own on: here on the classes."""
    network = make_network(opset=11, batch=batch)
    network.outputs = (("scores", FLOAT, [batch, CLASSES, 1, 1]),)
    network.weights["shape"] = np.array([-1, CLASSES, 1, 1])
    network.nodes[-1].output[0] = "logits"
    network.nodes += [
        node("Reshape", "logits shape", "four"),
        node("Softmax", "four", "scores", axis=1),
    ]
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(16)
    for wanted in FILE_PRECISIONS:
        got = run(make(source, wanted, "uint8", "scores"), images)
        assert np.abs(got - run(source, images)).max() < 0.05


def test_other_outputs_are_dropped_with_what_leads_to_them(tmp_path, make):
    network = make_network(
        outputs=(("second", FLOAT, ["N", 8, SIDE, SIDE]), ("scores", FLOAT, ["N", CLASSES]))
    )
    network.weights["w9"] = np.ones((8, 8, 1, 1), np.float32)
    network.nodes.append(node("Conv", "r1 w9", "second"))
    source = save_network(tmp_path / "small.onnx", network)
    write_recipe(source, output={"name": "scores"})
    assert kinds(onnx.load(make(source)))["Conv"] == 2


@pytest.mark.parametrize("wanted", FILE_PRECISIONS)
def test_a_model_in_float16(tmp_path, make, wanted):
    network = make_network(
        dtype=TensorProto.FLOAT16, outputs=(("scores", TensorProto.FLOAT16, ["N", CLASSES]),)
    )
    network.weights = {name: value.astype(np.float16) for name, value in network.weights.items()}
    network.nodes[0].input[0] = "cast"  # a type that the graph itself names
    network.nodes.insert(0, node("Cast", "images", "cast", to=TensorProto.FLOAT16))
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(64)
    expected = run(source, images).astype(np.float32)
    made = make(source, wanted, "fp32", "scores")
    assert load_model_recipe(made).input.dtype == "float32"
    assert np.abs(run(made, images) - expected).max() <= 0.1 * np.abs(expected).max()
    assert (run(make(source, wanted), images) == expected.argmax(axis=1)).mean() >= 0.9
    types = {tensor.data_type for tensor in onnx.load(made).graph.initializer}
    assert (TensorProto.FLOAT16 in types) == (wanted == "fp16")


def test_weights_in_another_file_come_along(tmp_path, make, source):
    model = onnx.load(source)
    images = draw_images(8)
    expected = run(source, images).argmax(axis=1)
    onnx.save(model, source, save_as_external_data=True, location="small.bin", size_threshold=0)
    made = make(source)
    (tmp_path / "small.bin").unlink()
    assert run(made, images).tolist() == expected.tolist()


def test_a_model_too_large_for_one_file(source, make, monkeypatch):
    monkeypatch.setattr(network_module, "MAX_BYTES", source.stat().st_size - 1)
    with pytest.raises(UserError, match=r"one ONNX file holds less than 2 GiB"):
        make(source)


def test_functions_are_written_out(tmp_path, make, source):
    model = onnx.load(source)
    model.functions.append(
        helper.make_function(
            "local", "Twice", ["x"], ["y"], [node("Add", "x x", "y")], model.opset_import
        )
    )
    model.graph.node[-1].output[0] = "once"
    model.graph.node.append(helper.make_node("Twice", ["once"], ["scores"], domain="local"))
    model.opset_import.append(helper.make_opsetid("local", 1))
    source.write_bytes(model.SerializeToString())
    images = draw_images(8)
    got = run(make(source, "fp32", "uint8", "scores"), images)
    np.testing.assert_array_equal(got, run(source, images))


@pytest.mark.parametrize("wanted", FILE_PRECISIONS)
def test_a_graph_inside_a_node(tmp_path, make, wanted):
    """It reads tensors of the graph around it, which must stay and keep pace with its names."""
    network = make_network()
    network.nodes[-1].output[0] = "class"
    value = helper.make_tensor_value_info
    branches = [
        helper.make_graph(
            [node(kind, "class", f"inner{kind}")],
            kind,
            [],
            [value(f"inner{kind}", FLOAT, ["N", CLASSES])],
        )
        for kind in ("Identity", "Neg")
    ]
    network.weights["yes"] = np.array(True)
    network.nodes.append(
        node("If", "yes", "scores", then_branch=branches[0], else_branch=branches[1])
    )
    source = save_network(tmp_path / "small.onnx", network)
    images = draw_images(16)
    assert (run(make(source, wanted), images) == run(source, images).argmax(axis=1)).mean() > 0.8


def test_operators_of_an_engine(source, make):
    model = onnx.load(source)
    model.graph.node[1].op_type, model.graph.node[1].domain = "Gelu", "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    source.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"not ONNX's own \(com\.microsoft\.Gelu\)"):
        make(source)


@pytest.mark.parametrize("wanted", FILE_PRECISIONS)
def test_a_quantised_source(source, make, tmp_path, wanted):
    made = make(source, "int8", "fp32", "scores")
    again = tmp_path / "quantised.onnx"
    again.write_bytes(made.read_bytes())
    write_recipe(again)
    with pytest.raises(UserError, match=r"quantised already .* Give the float model"):
        make(again, wanted)


def test_what_onnx_runtime_cannot_read(tmp_path, make):
    network = make_network()
    network.nodes[1] = node("Relu", "c1 c1", "r1")
    source = save_network(tmp_path / "small.onnx", network)
    with pytest.raises(UserError, match=r"small\.onnx: ONNX Runtime cannot open it"):
        make(source, "fp16")
