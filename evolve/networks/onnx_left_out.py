"""Finds the weights of an ONNX graph that may be in no layer: quantized ones, and what no product reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from evolve.errors import NetworkError
from evolve.networks.network import some
from evolve.networks.onnx_constants import inner_graphs
from evolve.networks.onnx_layers import FLOATS, RECURRENT

_Types = onnx.TensorProto
#: What quantizers make of weights.
_QUANTIZED = frozenset(
    getattr(_Types, name)
    for name in (
        *("INT16", "UINT16", "INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1"),
        *("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"),
    )
    if hasattr(_Types, name)
)
#: The inputs that are biases, scales and zero points, which may have two axes too.
_NO_WEIGHTS: Mapping[str, tuple[int, ...]] = {
    # Those of peepholes included.
    **dict.fromkeys(RECURRENT, (3, 7)),
    "DynamicQuantizeLSTM": (3, 7, 8, 9, 10, 11),
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "MatMulInteger": (2, 3),
    "ConvInteger": (2, 3),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QLinearConv": (1, 2, 4, 5, 6, 7, 8),
    "MatMulIntegerToFloat": (2, 3, 4, 5, 6),
    "DynamicQuantizeMatMul": (2, 3, 4),
    "MatMulNBits": (2, 3, 4, 5),
    "MatMulBnb4": (2,),
    "GatherBlockQuantized": (2, 3),
}


class _Use(NamedTuple):
    node: onnx.NodeProto
    place: int
    inside: str  # the node that has this one in a branch or a loop


class _Weights(NamedTuple):
    """The numbers in a tensor, and how it is read."""

    size: int
    reader: str
    is_quantized: bool


def count_weights(graph: onnx.GraphProto) -> dict[str, int]:
    """Return how many numbers each tensor of weights has, by name, those in branches too.

    Such are tensors of floats or of what quantizers make of them, with two axes or more. Left out are what
    nothing reads, scales, and the biases of recurrent nodes: their other axis is the direction.

    Args:
        graph: A graph without constants that are no initializers, but for its branches and loops.
    """
    return {name: each.size for name, each in _find_weights(graph, 2).items()}


def no_layers(graph: onnx.GraphProto, path: Path) -> NetworkError:
    """Return the error for a graph without weight layers: what it has instead.

    Args:
        graph: A graph without constants that are no initializers.
        path: The model.
    """
    # A weight that is reshaped first may have one axis.
    found = _find_weights(graph, 2) or _find_weights(graph, 1)
    largest = sorted(found, key=lambda name: -found[name].size)
    quantized = [name for name in largest if found[name].is_quantized]
    total, narrow = (sum(found[name].size for name in names) for names in (largest, quantized))
    if quantized and 2 * narrow >= total:
        return NetworkError(
            f"its weights are quantized already ({narrow:,} in {some(quantized)})",
            file=path,
            cure="Give the float model that it was made from.",
        )
    words = [f"{name} ({found[name].size:,} weights, read by {found[name].reader})" for name in largest]
    return NetworkError(
        f"no weight layers, only {some(words)}" if words else "no weight layers",
        file=path,
        expected="Conv, Gemm, MatMul or Gather with initializers",
    )


def _find_weights(graph: onnx.GraphProto, axes: int) -> dict[str, _Weights]:
    """Return the weights in tensors of so many axes or more, by name."""
    uses: dict[str, _Use] = {}
    for name, use in _uses(graph):
        uses.setdefault(name, use)
    found: dict[str, _Weights] = {}
    for name, tensor in _tensors(graph):
        count = int(np.prod(tensor.dims))
        is_quantized = tensor.data_type in _QUANTIZED
        known = is_quantized or tensor.data_type in (*FLOATS, _Types.BFLOAT16)
        if name not in uses or not known or count < 2:
            continue
        use = uses[name]
        packed = _packed(use, tensor)
        if packed is None and len(tensor.dims) < axes:
            continue
        count = packed or count
        # Branches may each have one of the same name.
        before = found[name].size if name in found else 0
        reader = f"{use.node.op_type} inside {use.inside}" if use.inside else use.node.op_type
        found[name] = _Weights(before + count, reader, is_quantized)
    return found


def _packed(use: _Use, tensor: onnx.TensorProto) -> int | None:
    """Return the number of weights where a node has several of them in one number, None where it has not."""
    if use.node.domain != "com.microsoft" or tensor.data_type != _Types.UINT8:
        return None
    given = {each.name: int(each.i) for each in use.node.attribute if each.type == onnx.AttributeProto.INT}
    if use.place == 1 and {"K", "N"} <= given.keys():
        return given["K"] * given["N"]
    bits = given.get("bits", given.get("expert_weight_bits"))
    return int(np.prod(tensor.dims)) * 8 // bits if bits else None


def _uses(graph: onnx.GraphProto, inside: str = "") -> Iterator[tuple[str, _Use]]:
    for node in graph.node:
        others = _NO_WEIGHTS.get(node.op_type, ())
        for place, name in enumerate(node.input):
            if place not in others:
                yield name, _Use(node, place, inside)
        for inner in inner_graphs(node):
            yield from _uses(inner, inside or node.op_type)


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    yield from ((each.name, each) for each in graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant":
            yield from ((node.output[0], each.t) for each in node.attribute if each.name == "value")
        for inner in inner_graphs(node):
            yield from _tensors(inner)
