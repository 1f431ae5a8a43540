"""Editing a graph."""

from __future__ import annotations

from onnx import helper

from ck_mlperf.models.graph import Names, list_names, sort_nodes

from ..builders.networks import node


def test_constant_names_are_new() -> None:
    graph = helper.make_graph([node("Relu", "x", "x.2", name="x.3")], "g", [], [])
    names = Names(list_names(graph))
    assert [names.new("x"), names.new("x"), names.new("y")] == ["x.4", "x.5", "y"]


def test_nodes_are_sorted_and_otherwise_left_as_they_are() -> None:
    order = ["a b", "x a", "in x", "b c"]
    nodes = [node("Relu", *step.split()) for step in order]
    graph = helper.make_graph(nodes, "g", [], [])
    sort_nodes(graph)
    assert [one.input[0] for one in graph.node] == ["in", "x", "a", "b"]
