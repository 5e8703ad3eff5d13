"""Looks up in an ONNX model how its nodes use the weights of an allocation's layers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

from evolve.allocations import Allocation
from evolve.errors import InputError
from evolve.exporters.export import Options
from evolve.exporters.onnx_places import Place, Places, Read
from evolve.networks.onnx_constants import fold_constants, inner_graphs, leave_inputs, names_read, split_uses
from evolve.networks.onnx_layers import channel_order, find_onnx_layers, find_views

#: The input at which an operator that onnxruntime quantizes has its weight.
_WEIGHT_INPUT = {"MatMul": 1, "Gemm": 1, "Conv": 1, "Gather": 0}
#: The types of weights that its quantizers take; they pass over others without a word.
_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


@dataclass(frozen=True)
class _Use:
    """One input of one node that is a layer's weight: as which tensor, with which axes of the layer's."""

    node: onnx.NodeProto
    place: int | None
    name: str
    axes: tuple[int, ...]


def prepared(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Return an ONNX model in the form that an export is about, for onnxruntime's quantizers.

    It computes the same. Every node has a name, and every weight is an initializer that its nodes read
    themselves, not the value of a ``Constant``, ``Identity`` or ``Transpose``.

    Raises:
        InputError: The model cannot be read.
    """
    model = _load(path)
    # Before version 4 an initializer had to be an input too.
    model.ir_version = max(model.ir_version, 4)
    leave_inputs(model.graph)
    fold_constants(model.graph)
    _name_nodes(model.graph)
    split_uses(model.graph)
    return model


def find_places(allocation: Allocation, options: Options, path: str | os.PathLike[str]) -> Places:
    """Return where an ONNX model has the layers of an allocation, once it is `prepared`.

    Raises:
        InputError: The model cannot be read, or lacks a layer.
    """
    graph = _load(path).graph
    written = {each.name for each in graph.initializer}, {_written(node) for node in graph.node}
    found = {each.name: each for each in find_onnx_layers(graph, fold_constants(graph))}
    _name_nodes(graph)
    by_initializer = {each.initializer: each for each in found.values()}
    reads = _find_reads(graph)
    types = {each.name: each.data_type for each in graph.initializer}
    places = []
    as_written = True
    for name in allocation.names:
        layer = found.get(name) or by_initializer.get(options.names.get(name, name))
        if layer is None:
            known = ", ".join(list(found)[:8])
            raise InputError(
                "no such layer in the model", file=path, expected=f"one like {known}", found=name
            )
        uses = reads.get(layer.initializer, [])
        places.append(_place(layer.initializer, uses, layer.axes[0], types[layer.initializer]))
        as_written &= all(each.name in written[0] and _written(each.node) in written[1] for each in uses)
    taken = {node for place in places for read in place.reads for node in read.nodes}
    others = {
        kind: tuple(
            each.name for each in _all_nodes(graph) if each.op_type == kind and each.name not in taken
        )
        for kind in ("MatMul", "Gather")
    }
    return Places(tuple(places), others, as_written)


def _load(path: str | os.PathLike[str]) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except Exception as fault:
        raise InputError(
            f"cannot be read ({fault})", file=path, field="--network", expected="an ONNX model"
        ) from fault


def _written(node: onnx.NodeProto) -> tuple[str, ...]:
    return (node.name, *node.input, "", *node.output)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name the nodes that have no name by what they make."""
    for node in _all_nodes(graph):
        node.name = node.name or next(filter(None, node.output), node.op_type)


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of the branches and loops in it, which onnxruntime quantizes too."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from _all_nodes(inner)


def _find_reads(graph: onnx.GraphProto) -> dict[str, list[_Use]]:
    """Return the uses of each initializer, transposes of it included; no place for one in a branch."""
    views = find_views(graph)
    uses: dict[str, list[_Use]] = {}
    for node in graph.node:
        places = [(place, name) for place, name in enumerate(node.input) if name in views]
        inside = sorted({name for name in names_read(node) if name in views} - set(node.input))
        for place, name in [*places, *((None, name) for name in inside)]:
            if node.op_type not in ("Identity", "Transpose"):
                view = views[name]
                uses.setdefault(view.initializer, []).append(_Use(node, place, name, view.axes))
    return uses


def _place(initializer: str, uses: Sequence[_Use], axis: int, kind: int) -> Place:
    obstacle = next(filter(None, map(_obstacle, uses)), "")
    if kind not in _TYPES:
        obstacle = f"onnxruntime quantizes no weights in {onnx.TensorProto.DataType.Name(kind)}"
    if obstacle:
        return Place(initializer, (), obstacle)
    nodes: dict[tuple[str, str, bool], list[_Use]] = {}
    for use in uses:
        own = channel_order(use.node, _WEIGHT_INPUT[use.node.op_type], len(use.axes))[0]
        nodes.setdefault((use.name, use.node.op_type, use.axes[own] == axis), []).append(use)
    reads = tuple(
        Read(name, operator, tuple(each.node.name for each in same), same[0].axes.index(axis), along)
        for (name, operator, along), same in nodes.items()
    )
    if len({each.operator for each in reads}) > 1 or not all(each.along for each in reads):
        ways = " and ".join(dict.fromkeys(f"{each.operator} ({each.nodes[0]})" for each in reads))
        obstacle = f"{ways} read this weight, so it needs a format that fits them all"
    return Place(initializer, reads, obstacle)


def _obstacle(use: _Use) -> str:
    """Return why onnxruntime cannot quantize a weight that is used so, in words; empty where it can."""
    operator, node = use.node.op_type, f"node {use.node.name}"
    if use.place is None:
        return f"a branch or loop inside {node} reads it, which onnxruntime does not quantize"
    if operator not in _WEIGHT_INPUT:
        return f"onnxruntime does not quantize the weights of {operator} ({node})"
    if use.place == _WEIGHT_INPUT[operator]:
        return ""
    if use.place == 0:
        words = "onnxruntime quantizes right ones only: write the product the other way round"
        return f"it is the left factor of {operator} ({node}), and {words}"
    return f"{node} reads it as its input {use.place}, where onnxruntime quantizes no weight of {operator}"
