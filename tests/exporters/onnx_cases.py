"""ONNX models for onnxruntime's exports: the digits' network, and small ones of any nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from digits_networks import trained_mlp
from export_cases import layer
from onnx import TensorProto, helper, numpy_helper

from evolve.allocations import Allocation

#: Layer: its initializer, whose layout is (in, out) but for the last, the node, type and shape.
PLACES = {
    "fc1": ("fc1.weight", "first", "Linear", (96, 64)),
    "fc2": ("fc2.weight", "second", "Linear", (64, 96)),
    "head": ("head.weight", "last", "Classifier", (10, 64)),
}


def digits_network(path: Path) -> Path:
    """Write the digits' network as two products and a Gemm."""
    state = {name: value.numpy() for name, value in trained_mlp().state_dict().items()}
    node = helper.make_node
    nodes = [
        node("MatMul", ["images", "fc1.weight"], ["a"], name="first"),
        node("Add", ["a", "b1"], ["b"], name="bias1"),
        node("Relu", ["b"], ["c"], name="relu1"),
        node("MatMul", ["c", "fc2.weight"], ["d"], name="second"),
        node("Add", ["d", "b2"], ["e"], name="bias2"),
        node("Relu", ["e"], ["f"], name="relu2"),
        node("LayerNormalization", ["f", "norm.weight", "norm.bias"], ["g"], name="norm", axis=-1),
        node("Gemm", ["g", "head.weight", "b3"], ["logits"], name="last", transB=1),
    ]
    tensors = {
        "fc1.weight": state["0.weight"].T,
        "b1": state["0.bias"],
        "fc2.weight": state["2.weight"].T,
        "b2": state["2.bias"],
        "norm.weight": state["4.weight"],
        "norm.bias": state["4.bias"],
        "head.weight": state["5.weight"],
        "b3": state["5.bias"],
    }
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(np.ascontiguousarray(each), name) for name, each in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def allocation(*formats: str) -> Allocation:
    rows = zip(PLACES.items(), formats, strict=True)
    layers = [layer(name, kind, shape, each) for (name, (_, _, kind, shape)), each in rows]
    return Allocation("digits", (*layers[:2], layer("norm", "LayerNorm", (64,), "FP32"), layers[2]))


def small_network(
    path: Path, nodes: list[Any], tensors: dict[str, np.ndarray], ids: bool = False, width: int = 64
) -> Path:
    data = ("ids", TensorProto.INT64, ["N"]) if ids else ("x", TensorProto.FLOAT, ["N", width])
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*data)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(each, name) for name, each in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path
