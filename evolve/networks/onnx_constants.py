"""The constant tensors of an ONNX graph: brought into one form, and taken out where they are large."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

#: Initializers from this size on are handed to onnxruntime where they lie.
_LARGE = 1024


def fold_constants(graph: onnx.GraphProto) -> dict[str, str]:
    """Turn constants, and copies and transposes of initializers, into initializers of their own.

    Exporters write a weight as a node that holds it, as another name of an equal one, or transposed
    before its product; folded, every weight is what its operator reads.

    Returns:
        The initializer that each copy or transpose is one of, by its name.
    """
    tensors = {each.name: each for each in graph.initializer}
    outputs = {each.name for each in graph.output}
    origins: dict[str, str] = {}
    for node in list(graph.node):
        folded = None
        if node.op_type == "Constant":
            value = next((each.t for each in node.attribute if each.name == "value"), None)
            folded = None if value is None else as_array(value)
        elif node.op_type in ("Identity", "Transpose") and node.input[0] in tensors:
            folded = as_array(tensors[node.input[0]])
            order = next((list(each.ints) for each in node.attribute if each.name == "perm"), None)
            if node.op_type == "Transpose":
                folded = folded.transpose(order)
            origins[node.output[0]] = origins.get(node.input[0], node.input[0])
        if folded is None or node.output[0] in outputs:
            continue
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(folded), node.output[0])
        if not folded.ndim:
            tensor = onnx.numpy_helper.from_array(np.asarray(folded), node.output[0])
        graph.initializer.append(tensor)
        tensors[tensor.name] = tensor
        graph.node.remove(node)
    return origins


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
