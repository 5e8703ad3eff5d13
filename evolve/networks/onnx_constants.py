"""The constant tensors of an ONNX graph: brought into one form, and taken out where they are large."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

#: Initializers from this size on are handed to onnxruntime where they lie.
_LARGE = 1024


def fold_constants(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """Bring the constants of a graph into one form: each an initializer, and what is shared one initializer.

    Exporters write a weight as a node that holds it, as another name of an equal one, or transposed before
    its product. Folded, every weight is what its operators read; only one that is read both as it is and
    transposed, as the embedding that is also the last layer, keeps the node that transposes it. Nodes come
    in an order that they can run in.

    Returns:
        The other names that an initializer had, by its name.
    """
    sort_nodes(graph)
    _make_initializers(graph)
    others: dict[str, list[str]] = {}
    # There are copies of transposes, and transposes of copies.
    while follow_copies(graph, others) or _fold_transposes(graph, others):
        pass
    _join_embeddings(graph, others)
    return others


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put every node behind those that make what it reads, and else leave the order as it is.

    Some converters append the nodes that they add; onnxruntime sorts them too.
    """
    nodes = list(graph.node)
    makers = {name: at for at, node in enumerate(nodes) for name in node.output if name}
    needed = [{makers[name] for name in names_read(node) if name in makers} for node in nodes]
    readers: dict[int, list[int]] = {}
    for at, before in enumerate(needed):
        for each in before:
            readers.setdefault(each, []).append(at)
    ready = [at for at, before in enumerate(needed) if not before]
    order = []
    while ready:
        at = heapq.heappop(ready)
        order.append(at)
        for each in readers.get(at, ()):
            needed[each].remove(at)
            if not needed[each]:
                heapq.heappush(ready, each)
    # A circle is not for us to explain: onnxruntime does.
    if order != list(range(len(nodes))) and len(order) == len(nodes):
        del graph.node[:]
        graph.node.extend(nodes[at] for at in order)


def split_uses(graph: onnx.GraphProto) -> None:
    """Replace the transposes of initializers that are left by initializers of their own.

    Onnxruntime's quantizers take a weight only from the node that reads it, and pack it for that node.
    """
    tensors = {each.name: each for each in graph.initializer}
    outputs = {each.name for each in graph.output}
    for node in list(graph.node):
        if node.op_type == "Transpose" and node.input[0] in tensors and node.output[0] not in outputs:
            array = as_array(tensors[node.input[0]])
            made = _tensor(array.transpose(transpose_order(node, array.ndim)), node.output[0])
            graph.initializer.append(made)
            tensors[made.name] = made
            graph.node.remove(node)


def follow_copies(graph: onnx.GraphProto, others: dict[str, list[str]]) -> bool:
    """Let nodes read initializers themselves, not by the names that ``Identity`` gives them.

    Args:
        graph: The graph, changed in place.
        others: Gets the other names of each initializer.

    Returns:
        Whether there were any.
    """
    initializers = {each.name for each in graph.initializer}
    outputs = {each.name for each in graph.output}
    copies: dict[str, str] = {}
    for node in list(graph.node):
        _rename(node, copies)
        if node.op_type == "Identity" and node.input[0] in initializers and node.output[0] not in outputs:
            copies[node.output[0]] = node.input[0]
            others.setdefault(node.input[0], []).append(node.output[0])
            graph.node.remove(node)
    return bool(copies)


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, those inside its branches and loops included."""
    yield from filter(None, node.input)
    for graph in inner_graphs(node):
        own = {each.name for each in (*graph.input, *graph.initializer)}
        own |= {name for inner in graph.node for name in inner.output}
        for inner in graph.node:
            yield from (name for name in names_read(inner) if name not in own)


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the branches and loops of a node."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def transpose_order(node: onnx.NodeProto, rank: int) -> tuple[int, ...]:
    """Return the order in which a ``Transpose`` takes the axes of an array."""
    given = (tuple(each.ints) for each in node.attribute if each.name == "perm")
    return next(given, tuple(reversed(range(rank))))


def leave_inputs(graph: onnx.GraphProto) -> None:
    """Remove the inputs that have an initializer: nobody has to feed them."""
    constants = {each.name for each in graph.initializer}
    fed = [each for each in graph.input if each.name not in constants]
    del graph.input[:]
    graph.input.extend(fed)


def take_out(graph: onnx.GraphProto, weights: set[str]) -> dict[str, NDArray[Any]]:
    """Remove weights and other large initializers from a graph and return them as arrays."""
    taken = {
        each.name: as_array(each)
        for each in graph.initializer
        if each.name in weights or (np.prod(each.dims) >= _LARGE and each.data_type == onnx.TensorProto.FLOAT)
    }
    kept = [each for each in graph.initializer if each.name not in taken]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return taken


def as_array(tensor: onnx.TensorProto) -> NDArray[Any]:
    """Return an initializer as an array."""
    return np.asarray(onnx.numpy_helper.to_array(tensor))


def _make_initializers(graph: onnx.GraphProto) -> None:
    outputs = {each.name for each in graph.output}
    for node in list(graph.node):
        value = next((each.t for each in node.attribute if each.name == "value"), None)
        if node.op_type == "Constant" and value is not None and node.output[0] not in outputs:
            graph.initializer.append(_tensor(as_array(value), node.output[0]))
            graph.node.remove(node)


def _fold_transposes(graph: onnx.GraphProto, others: dict[str, list[str]]) -> bool:
    """Replace initializers that are only read transposed, and in one way; return whether there were any."""
    tensors = {each.name: each for each in graph.initializer}
    outputs = {each.name for each in graph.output}
    reading: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in dict.fromkeys(names_read(node)):
            if name in tensors:
                reading.setdefault(name, []).append(node)
    copies: dict[str, str] = {}
    for name, nodes in reading.items():
        plain = all(node.op_type == "Transpose" and node.output[0] not in outputs for node in nodes)
        orders = {transpose_order(node, len(tensors[name].dims)) for node in nodes} if plain else ()
        if name in outputs or len(orders) != 1:
            continue
        made, *same = (node.output[0] for node in nodes)
        copies[made] = made
        copies.update(dict.fromkeys(same, made))
        others[made] = [name, *others.pop(name, ()), *same]
        graph.initializer.append(_tensor(as_array(tensors[name]).transpose(*orders), made))
        for node in nodes:
            graph.node.remove(node)
        _drop(graph, name)
    for node in graph.node:
        _rename(node, copies)
    return bool(copies)


def _join_embeddings(graph: onnx.GraphProto, others: dict[str, list[str]]) -> None:
    """Make one initializer of an embedding and a last layer of the same numbers.

    The network has one weight there, of which an exporter that folds its transpose makes two.
    """
    tensors = {each.name: each for each in graph.initializer if len(each.dims) == 2}
    read = {
        place: {
            node.input[place]
            for node in graph.node
            if node.op_type in operators and len(node.input) > place and node.input[place] in tensors
        }
        for place, operators in ((0, ("Gather",)), (1, ("MatMul", "Gemm")))
    }
    made = []
    copies: dict[str, str] = {}
    for name in sorted(read[1] - read[0]):
        array = as_array(tensors[name])
        orders = {table: _order_of_copy(array, tensors[table]) for table in sorted(read[0])}
        table = next((each for each, order in orders.items() if order is not None), None)
        if table is None:
            continue
        others.setdefault(table, []).append(name)
        if orders[table] == (0, 1):
            copies[name] = table
        else:
            made.append(onnx.helper.make_node("Transpose", [table], [name], perm=(1, 0)))
        _drop(graph, name)
    nodes = [*made, *graph.node]
    for node in nodes:
        _rename(node, copies)
    del graph.node[:]
    graph.node.extend(nodes)


def _order_of_copy(array: NDArray[Any], table: onnx.TensorProto) -> tuple[int, int] | None:
    """Return the order of axes in which a table is an array, None where it is another one."""
    shape = tuple(table.dims)
    if array.shape not in (shape, shape[::-1]) or array.dtype.kind != "f":
        return None
    other = as_array(table)
    for order in ((1, 0), (0, 1)):
        # Zeros are no weights that anything would share.
        if np.array_equal(other.transpose(order), array) and array.any():
            return order
    return None


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Let a node, and what is inside it, read other names."""
    for place, name in enumerate(node.input):
        if name in names:
            node.input[place] = names[name]
    for graph in inner_graphs(node):
        for inner in graph.node:
            _rename(inner, names)


def _drop(graph: onnx.GraphProto, name: str) -> None:
    """Remove an initializer, among the inputs too."""
    for entries in (graph.initializer, graph.input):
        for each in [each for each in entries if each.name == name]:
            entries.remove(each)


def _tensor(array: NDArray[Any], name: str) -> onnx.TensorProto:
    # A contiguous copy of a scalar would have an axis.
    return onnx.numpy_helper.from_array(np.ascontiguousarray(array) if array.ndim else array, name)
