"""Edit the graph of an ONNX model; graphs inside its nodes (If, Loop) are included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx


class Names:
    """Names that are taken, and new ones that do not clash with them."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def __contains__(self, name: str) -> bool:
        return name in self._taken

    def new(self, wish: str) -> str:
        """`wish`, or where that is taken `wish.2` and so on."""
        name, number = wish, 1
        while name in self._taken:
            number += 1
            name = f"{wish}.{number}"
        self._taken.add(name)
        return name


def walk_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and all graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from walk_graphs(inner)


def list_names(graph: onnx.GraphProto) -> Iterator[str]:
    """The names of all tensors and nodes."""
    for part in walk_graphs(graph):
        for value in (*part.input, *part.output, *part.value_info, *part.initializer):
            yield value.name
        for sparse in part.sparse_initializer:
            yield sparse.values.name
        for node in part.node:
            yield from (node.name, *node.input, *node.output)


def list_reads(node: onnx.NodeProto) -> list[str]:
    """The tensors that a node reads, including those that graphs inside it read."""
    names = list(node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            names += [value.name for value in inner.output]
            names += [name for step in inner.node for name in list_reads(step)]
    return names


def read_shape(value: onnx.ValueInfoProto) -> list[int | str]:
    """The sizes of a tensor: a number, or the name of a size that is open."""
    return [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors, {old name: new name}, everywhere."""
    for part in walk_graphs(graph):
        for value in (*part.input, *part.output, *part.value_info, *part.initializer):
            value.name = names.get(value.name, value.name)
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own; a new name is that of the node's output, if free."""
    names = Names(node.name for node in graph.node)
    seen = {""}
    for node in graph.node:
        if node.name in seen:
            node.name = names.new(node.name or node.output[0])
        seen.add(node.name)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Move nodes behind those whose outputs they read; other nodes keep their order."""
    made_by = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    order: dict[int, None] = {}
    for first in range(len(graph.node)):
        stack = [first]
        while stack:
            index = stack[-1]
            missing = [
                made_by[name]
                for name in list_reads(graph.node[index])
                if name in made_by and made_by[name] not in order
            ]
            if missing and index not in order:
                stack.append(missing[0])
            else:
                order.setdefault(stack.pop())
    replace_nodes(graph, [graph.node[index] for index in order])


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Make `nodes`, some of which may be the graph's own, the nodes of the graph."""
    count = len(graph.node)
    graph.node.extend(nodes)  # this copies them, so remove the old ones only afterwards
    del graph.node[:count]


def skip_node(graph: onnx.GraphProto, node: onnx.NodeProto, tensor: str) -> None:
    """Remove a node; what read its output now reads `tensor`."""
    output = node.output[0]
    graph.node.remove(node)
    rename(graph, {output: tensor})


def find_only_reader(graph: onnx.GraphProto, tensor: str) -> onnx.NodeProto | None:
    """The node that reads a tensor, if there is exactly one."""
    readers = [node for node in graph.node if tensor in list_reads(node)]
    return readers[0] if len(readers) == 1 else None


def prune(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that no output depends on."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(list_reads(node))
    replace_nodes(graph, kept[::-1])
    keep_only(graph.initializer, lambda tensor: tensor.name in wanted)


def clear_types(graph: onnx.GraphProto) -> None:
    """Drop the types of intermediate tensors: shape inference finds them again."""
    for part in walk_graphs(graph):
        del part.value_info[:]


def keep_only(items: Any, is_wanted: Callable[[Any], bool]) -> None:
    """Remove the elements of a repeated protobuf field that are not wanted."""
    for index in reversed(range(len(items))):
        if not is_wanted(items[index]):
            del items[index]
