"""Where an ONNX model has the weights of an allocation's layers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from evolve.allocations import Allocation, LayerChoice
from evolve.errors import InputError
from evolve.exporters.export import Options
from evolve.networks.extras import require_onnx

BY_KIND = {"Conv": "Conv", "Embedding": "Gather", "LayerNorm": ""}
"""The operator that a layer's type suggests where no model is given; ``MatMul`` for the others."""


@dataclass(frozen=True)
class Place:
    """A layer in an ONNX graph.

    Attributes:
        initializer: The name of its tensor.
        nodes: The names of the nodes that read it.
        operator: What they are; empty where onnxruntime quantizes none of them.
        channel_axis: The axis of the output channels in the tensor.
    """

    initializer: str
    nodes: tuple[str, ...]
    operator: str
    channel_axis: int


@dataclass(frozen=True)
class Places:
    """All layers in an ONNX graph.

    Attributes:
        layers: Where each layer is, (L,).
        others: Nodes that have no layer of the allocation, by operator.
    """

    layers: tuple[Place, ...]
    others: dict[str, tuple[str, ...]]


def assumed_places(allocation: Allocation, options: Options) -> Places:
    """Return where layers are if initializers and nodes have their names."""
    return Places(
        tuple(_assumed(each, options.names.get(each.name, each.name)) for each in allocation.layers), {}
    )


def find_places(allocation: Allocation, options: Options, path: str | os.PathLike[str]) -> Places:
    """Return where an ONNX model has the layers of an allocation.

    Raises:
        InputError: The model cannot be read, or lacks a layer.
        NetworkError: The extra ``onnx`` is not installed.
    """
    require_onnx()
    import onnx

    from evolve.networks.onnx_constants import fold_constants
    from evolve.networks.onnx_layers import find_onnx_layers

    try:
        model = onnx.load(path)
    except Exception as fault:
        raise InputError(
            f"cannot be read ({fault})", file=path, field="--network", expected="an ONNX model"
        ) from fault
    nodes = [(node.name, node.op_type, tuple(node.input)) for node in model.graph.node]
    tensors = {each.name for each in model.graph.initializer}
    found = {each.name: each for each in find_onnx_layers(model.graph, fold_constants(model.graph))}
    by_initializer = {each.initializer: each for each in found.values()}
    places = []
    for name in allocation.names:
        layer = found.get(name) or by_initializer.get(options.names.get(name, name))
        if layer is None:
            known = ", ".join(list(found)[:8])
            raise InputError(
                "no such layer in the model", file=path, expected=f"one like {known}", found=name
            )
        place = _place(layer.initializer, nodes, layer.axes[0])
        places.append(place if layer.initializer in tensors else Place(layer.initializer, (), "", 0))
    taken = {node for place in places for node in place.nodes}
    others = {
        kind: tuple(name for name, operator, _ in nodes if operator == kind and name not in taken)
        for kind in ("MatMul", "Gather")
    }
    return Places(tuple(places), others)


def _assumed(layer: LayerChoice, name: str) -> Place:
    operator = BY_KIND.get(layer.kind, "MatMul")
    return Place(name, (name,), operator, 1 if operator == "MatMul" else 0)


def _place(initializer: str, nodes: Sequence[tuple[str, str, tuple[str, ...]]], axis: int) -> Place:
    reading = [each for each in nodes if initializer in each[2]]
    operators = {operator for _, operator, _ in reading}
    # A product's constant has to be its second factor, and a node without a name cannot be chosen.
    where = {"Gather": 0}.get(next(iter(operators), ""), 1)
    usable = len(operators) == 1 and all(name and inputs[where] == initializer for name, _, inputs in reading)
    names = tuple(name for name, _, _ in reading)
    return Place(initializer, names, operators.pop() if usable else "", axis)
