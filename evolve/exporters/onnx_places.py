"""Where the weights of an allocation's layers are in an ONNX model, for onnxruntime's quantizers."""

from __future__ import annotations

from dataclasses import dataclass

from evolve.allocations import Allocation, LayerChoice
from evolve.exporters.export import Options

BY_KIND = {"Conv": "Conv", "Embedding": "Gather", "LayerNorm": ""}
"""The operator that a layer's type suggests where no model is given; ``MatMul`` for the others."""


@dataclass(frozen=True)
class Read:
    """How nodes of one operator read a layer.

    Attributes:
        initializer: The name of the tensor that they read.
        operator: What they are.
        nodes: Their names.
        channel_axis: The axis of the layer's output channels in the tensor.
        along: Whether that is the axis of the output channels for these nodes too.
    """

    initializer: str
    operator: str
    nodes: tuple[str, ...]
    channel_axis: int
    along: bool = True


@dataclass(frozen=True)
class Place:
    """A layer in an ONNX graph.

    Attributes:
        initializer: The name of its tensor.
        reads: How it is read; empty where onnxruntime cannot quantize it.
        obstacle: Why onnxruntime cannot store it as any other; empty where it can.
    """

    initializer: str
    reads: tuple[Read, ...]
    obstacle: str = ""


@dataclass(frozen=True)
class Places:
    """All layers in an ONNX graph.

    Attributes:
        layers: Where each layer is, (L,).
        others: Nodes that have no layer of the allocation, by operator.
        as_written: Whether the file has all these names, so that `prepared` need not make them.
    """

    layers: tuple[Place, ...]
    others: dict[str, tuple[str, ...]]
    as_written: bool = True


def assumed_places(allocation: Allocation, options: Options) -> Places:
    """Return where layers are if initializers and nodes have their names."""
    layers = tuple(_assumed(each, options.names.get(each.name, each.name)) for each in allocation.layers)
    # Whatever reads the others is not to be quantized with the rest of its kind.
    unknown = [
        options.names.get(name, name)
        for each, place in zip(allocation.layers, layers, strict=True)
        if not place.reads
        for name in (each.name, *each.aliases)
    ]
    return Places(layers, {operator: tuple(unknown) for operator in ("MatMul", "Gather") if unknown})


def _assumed(layer: LayerChoice, name: str) -> Place:
    if layer.aliases or (layer.kind == "Conv" and layer.channel_axis != 0):
        # Read by several nodes, or by a transposed convolution, which no type tells.
        return Place(name, ())
    operator = BY_KIND.get(layer.kind, "MatMul")
    return Place(name, (Read(name, operator, (name,), 1 if operator == "MatMul" else 0),))
