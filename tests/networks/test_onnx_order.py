"""ONNX graphs whose nodes are in an order that they cannot run in."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from evolve.errors import NetworkError
from evolve.exporters.onnx_lookup import prepared
from evolve.networks import OnnxNetwork
from evolve.networks.applying import save_quantized, uniform
from evolve.networks.onnx_constants import sort_nodes
from evolve.networks.replay import Replay

X = np.random.default_rng(0).normal(size=(6, 4)).astype("f")


def branch(name: str, sign: float) -> onnx.GraphProto:
    """Reads ``h`` and ``x`` of the graph around it, and ``inside``, which it makes itself."""
    constant = numpy_helper.from_array(np.array(sign, "f"), "sign")
    nodes = [
        helper.make_node("Mul", ["h", "sign"], ["inside"]),
        helper.make_node("Add", ["inside", "x"], [name]),
    ]
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4])
    return helper.make_graph(nodes, name, [], [output], [constant])


NODES = [
    helper.make_node("Transpose", ["stored"], ["first.weight"], perm=[1, 0]),
    helper.make_node("MatMul", ["x", "first.weight"], ["a"]),
    helper.make_node("Identity", ["a"], ["h"]),
    helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
    helper.make_node("Greater", ["total", "zero"], ["positive"]),
    helper.make_node(
        "If", ["positive"], ["r"], then_branch=branch("then", 1), else_branch=branch("else", -1)
    ),
    helper.make_node("MatMul", ["r", "second.weight"], ["out"]),
]


def graph(order) -> onnx.GraphProto:
    rng = np.random.default_rng(1)
    weights = {each: rng.normal(size=(4, 4)).astype("f") for each in ("stored", "second.weight")}
    weights["zero"] = np.array(0, "f")
    return helper.make_graph(
        [NODES[at] for at in order],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, 4])],
        [numpy_helper.from_array(each, name) for name, each in weights.items()],
    )


def write(order, path):
    model = helper.make_model(graph(order), opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("order", [(6, 5, 4, 3, 2, 1, 0), (1, 0, 5, 6, 2, 3, 4), (3, 5, 2, 4, 0, 6, 1)])
def test_the_order_of_nodes_changes_nothing(order, tmp_path):
    plain = OnnxNetwork(write(range(7), tmp_path / "plain.onnx"), {"x": X}, threads=1)
    mixed = OnnxNetwork(write(order, tmp_path / "mixed.onnx"), {"x": X}, threads=1)
    assert [each.name for each in mixed.layers] == [each.name for each in plain.layers] == ["first", "second"]
    for name in ("first", "second"):
        changed = plain.weights(name) + np.float32(0.5)
        expected = plain.outputs(0, {name: changed})
        np.testing.assert_array_equal(mixed.outputs(0, {name: changed}), expected)
        np.testing.assert_array_equal(next(iter(Replay(mixed).outputs(name, changed))), expected)
    save_quantized(mixed, uniform(mixed, "FP32"), tmp_path / "saved.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "saved.onnx"))
    onnx.checker.check_model(prepared(tmp_path / "mixed.onnx"))
    made = onnxruntime.InferenceSession(tmp_path / "saved.onnx").run(None, {"x": X})[0]
    np.testing.assert_allclose(made, plain.outputs(0), rtol=1e-5, atol=1e-6)


def test_an_order_that_runs_stays():
    for order in ((0, 1, 2, 3, 4, 5, 6), (3, 0, 4, 1, 2, 5, 6)):
        made = graph(order)
        sort_nodes(made)
        assert list(made.node) == [NODES[at] for at in order]


def test_a_circle_is_explained(tmp_path):
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("MatMul", ["a", "stored"], ["b"]),
        helper.make_node("Identity", ["b"], ["out"]),
    ]
    model = helper.make_model(graph(()), opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(NetworkError, match="onnxruntime does not run the model"):
        OnnxNetwork(tmp_path / "m.onnx", {"x": X}, threads=1)
