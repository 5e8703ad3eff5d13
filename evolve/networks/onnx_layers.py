"""Finds the weight layers of an ONNX graph."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from evolve.networks.network import product_kind
from evolve.networks.onnx_constants import transpose_order

RECURRENT = ("LSTM", "GRU", "RNN")
#: What ONNX calls the inputs of those that are weights: of the input, and of the state before.
_RECURRENT_WEIGHTS = {1: "W", 2: "R"}
#: Where operators have their weights: the input, and the layer type; None for a matrix product.
_WEIGHT_INPUTS: Mapping[str, tuple[tuple[int, str | None], ...]] = {
    "Conv": ((1, "Conv"),),
    "ConvTranspose": ((1, "Conv"),),
    "Gemm": ((1, None), (0, None)),
    "MatMul": ((1, None), (0, None)),
    "Gather": ((0, "Embedding"),),
    **dict.fromkeys(RECURRENT, tuple((place, "Linear") for place in _RECURRENT_WEIGHTS)),
    "BatchNormalization": ((1, "LayerNorm"),),
    "LayerNormalization": ((1, "LayerNorm"),),
    "InstanceNormalization": ((1, "LayerNorm"),),
    "GroupNormalization": ((1, "LayerNorm"),),
    "RMSNormalization": ((1, "LayerNorm"),),
    "SimplifiedLayerNormalization": ((1, "LayerNorm"),),
}
#: The types of the tensors that layers have.
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
#: Names that exporters make up: the node's name says more.
_MADE_UP = re.compile(r"^(onnx::|val_|_?\d+$|const)|_output_\d+$|_transposed$", re.IGNORECASE)


@dataclass(frozen=True)
class View:
    """What a node reads an initializer as.

    Attributes:
        initializer: The initializer's name.
        axes: The initializer's axes in the order in which the node gets them.
    """

    initializer: str
    axes: tuple[int, ...]


@dataclass(frozen=True)
class OnnxLayer:
    """A weight layer and its initializer.

    Attributes:
        name: The initializer's name without ``.weight``, or one by the node's where that one is made up.
        kind: A layer type; the classifier is still a ``Linear``.
        initializer: The initializer's name.
        axes: The initializer's axes in the order that puts output channels first.
    """

    name: str
    kind: str
    initializer: str
    axes: tuple[int, ...]

    def channels_first(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Return the initializer's array with output channels first, as float32."""
        return np.ascontiguousarray(array.transpose(self.axes).astype(np.float32))

    def own_layout(self, weights: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return weights, output channels first, in the initializer's layout and type."""
        return np.ascontiguousarray(weights.transpose(np.argsort(self.axes)).astype(dtype))


def find_onnx_layers(graph: onnx.GraphProto, others: Mapping[str, Sequence[str]]) -> list[OnnxLayer]:
    """Return the weight layers in the order of the nodes, an initializer that several nodes read once.

    Its axes are those of its first use, whatever else reads it, as it is or transposed.

    Args:
        graph: A graph without constants that are no initializers.
        others: The other names that initializers had.
    """
    views = find_views(graph)
    sizes = {each.name: int(np.prod(each.dims)) for each in graph.initializer}
    layers: dict[str, OnnxLayer] = {}
    taken: set[str] = set()
    for node in graph.node:
        for place, kind in _WEIGHT_INPUTS.get(node.op_type, ()):
            view = views.get(node.input[place]) if place < len(node.input) else None
            if view is None or view.initializer in layers or not sizes[view.initializer]:
                continue
            key, rank = view.initializer, len(view.axes)
            if kind is None and (rank < 2 or (node.op_type == "Gemm" and rank != 2)):
                continue
            if kind == "Embedding" and (rank < 2 or _attribute(node, "axis", 0) != 0):
                continue
            name = _layer_name(key, others.get(key, ()), node, place, taken)
            taken.add(name)
            axes = tuple(view.axes[axis] for axis in channel_order(node, place, rank))
            layers[key] = OnnxLayer(name, kind or product_kind(key, node.name), key, axes)
            if kind is None:
                break  # a product of two constants is no layer twice
    return list(layers.values())


def find_views(graph: onnx.GraphProto) -> dict[str, View]:
    """Return what nodes read initializers as, by the names that they read."""
    views = {
        each.name: View(each.name, tuple(range(len(each.dims))))
        for each in graph.initializer
        if each.data_type in FLOATS and len(each.dims)
    }
    for node in graph.node:
        view = views.get(node.input[0]) if node.op_type in ("Identity", "Transpose") else None
        if view is not None:
            order = tuple(range(len(view.axes)))
            if node.op_type == "Transpose":
                order = transpose_order(node, len(view.axes))
            views[node.output[0]] = View(view.initializer, tuple(view.axes[axis] for axis in order))
    return views


def _layer_name(key: str, others: Sequence[str], node: onnx.NodeProto, place: int, taken: set[str]) -> str:
    """Return the first name that is no made-up one and not taken yet: the tensor's, or the module's.

    A recurrent node has two weights, and its module may have several such nodes: there it is the node's name,
    and what ONNX calls the weight, as in ``encoder.rnn.LSTM_1.R``.
    """
    parts = node.name.strip("/").split("/")
    names = [each.removesuffix(".weight") for each in (key, *others) if not _MADE_UP.search(each)]
    if node.op_type in RECURRENT:
        parts = parts if node.name else next(filter(None, node.output)).strip("/").split("/")
        names.append(".".join([*parts, _RECURRENT_WEIGHTS[place]]))
    else:
        parts = parts[:-1] if parts[-1].startswith(node.op_type) else parts
        names += [".".join(parts), node.name]
    return next(name for name in (*names, key) if name.strip() and (name not in taken or name == key))


def channel_order(node: onnx.NodeProto, place: int, rank: int) -> tuple[int, ...]:
    """Return the order of axes that puts the output channels of a node's weight first.

    Args:
        node: The node.
        place: Which of its inputs is the weight.
        rank: The number of axes of that.
    """
    axes = list(range(rank))
    if node.op_type == "ConvTranspose":
        return (1, 0, *axes[2:])
    if node.op_type == "MatMul":
        # (…, in, out) on the right, (…, out, in) on the left.
        return (rank - 1, *axes[:-1]) if place == 1 else (rank - 2, *axes[:-2], rank - 1)
    if node.op_type == "Gemm":
        transposed = bool(_attribute(node, "transB" if place == 1 else "transA", 0))
        return (0, 1) if transposed == (place == 1) else (1, 0)
    # Recurrent ones are (directions, gates · hidden, in).
    return (1, 0, 2) if node.op_type in RECURRENT and rank == 3 else tuple(axes)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((each.i for each in node.attribute if each.name == name), default)
