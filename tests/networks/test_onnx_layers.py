"""Which weights of an ONNX graph are layers, what they are called, and how they are laid out."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_files import export, graph
from small_networks import Recurrent
from torch import nn

from evolve.exporters.export import Options
from evolve.exporters.onnx_lookup import find_places, prepared
from evolve.networks import OnnxNetwork
from evolve.networks.applying import make_allocation, uniform
from evolve.networks.checking import check_allocations
from evolve.networks.joint_measuring import JointMeasurer
from evolve.networks.replay import Replay

FORMATS = ("INT4", "INT8", "FP32")


def test_weights_have_the_bits_that_they_are_stored_in(tmp_path):
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "wide"], ["h"]),
        helper.make_node("Cast", ["h"], ["short"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["short", "narrow"], ["end"]),
        helper.make_node("Cast", ["end"], ["out"], to=TensorProto.FLOAT),
    ]
    weights = {"wide": rng.normal(size=(4, 6)).astype("f4"), "narrow": rng.normal(size=(6, 2)).astype("f2")}
    network = OnnxNetwork(graph(nodes, weights, tmp_path / "m.onnx"), {"x": np.ones((12, 4))}, threads=1)
    assert {each.name: each.stored_bits for each in network.layers} == {"wide": 32, "narrow": 16}
    check = check_allocations(JointMeasurer(network), {"one": uniform(network, "INT8")}, [])
    assert check.unchanged.size_bytes == 4 * 24 + 2 * 12


def test_layouts_are_told_apart(tmp_path):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(4, 6)).astype("f"), rng.normal(size=(3, 6)).astype("f")
    nodes = [
        helper.make_node("MatMul", ["x", "first.weight"], ["h"]),
        helper.make_node("Gemm", ["h", "second.weight"], ["out"], transB=1),
    ]
    path = graph(nodes, {"first.weight": first, "second.weight": second}, tmp_path / "m.onnx")
    x = rng.normal(size=(7, 4)).astype("f")
    network = OnnxNetwork(path, {"x": x, "y": np.arange(7) % 3}, threads=1)
    assert [(each.name, each.shape) for each in network.layers] == [("first", (6, 4)), ("second", (3, 6))]
    np.testing.assert_array_equal(network.weights("first"), first.T)
    np.testing.assert_array_equal(network.weights("second"), second)
    changed = {"first": 2 * first.T, "second": 3 * second}
    np.testing.assert_allclose(network.outputs(0, changed), 6 * (x @ first @ second.T), rtol=1e-5)


def test_what_is_read_in_several_ways_is_one_layer(tmp_path):
    rng = np.random.default_rng(0)
    twice, both = rng.normal(size=(5, 4)).astype("f"), rng.normal(size=(5, 5)).astype("f")
    nodes = [
        # Stored transposed, and read by two products.
        helper.make_node("Transpose", ["twice.weight"], ["t1"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t1"], ["a"]),
        helper.make_node("Identity", ["twice.weight"], ["copy"]),
        helper.make_node("Transpose", ["copy"], ["t2"]),
        helper.make_node("MatMul", ["x", "t2"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        # Read as it is and, by the name of a copy, transposed.
        helper.make_node("Transpose", ["both.weight"], ["t3"]),
        helper.make_node("Identity", ["t3"], ["t4"]),
        helper.make_node("MatMul", ["c", "t4"], ["d"]),
        helper.make_node("MatMul", ["d", "both.weight"], ["out"]),
    ]
    path = graph(nodes, {"twice.weight": twice, "both.weight": both}, tmp_path / "m.onnx")
    x = rng.normal(size=(3, 4)).astype("f")
    network = OnnxNetwork(path, {"x": x}, threads=1)
    assert [(each.kind, each.shape) for each in network.layers] == [("Linear", (5, 4)), ("Linear", (5, 5))]
    first, second = (each.name for each in network.layers)
    # As the first of its products has it: rows are output channels.
    np.testing.assert_array_equal(network.weights(first), twice)
    np.testing.assert_array_equal(network.weights(second), both)
    changed = {first: twice + 1, second: both - 1}
    expected = 2 * x @ changed[first].T @ changed[second].T @ changed[second]
    np.testing.assert_allclose(network.outputs(0, changed), expected, rtol=1e-5)
    network.save(tmp_path / "saved.onnx", changed)
    assert len(onnx.load(tmp_path / "saved.onnx").graph.initializer) == 2
    made = onnxruntime.InferenceSession(tmp_path / "saved.onnx").run(None, {"x": x})[0]
    np.testing.assert_allclose(made, expected, rtol=1e-5)


def test_branches_inside_nodes_are_followed(tmp_path):
    weight = np.eye(4, dtype="f")

    def branch(sign: float, name: str):
        constant = numpy_helper.from_array(np.array(sign, "f"), f"{name}_sign")
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph(
            [helper.make_node("Mul", ["h", f"{name}_sign"], [name])], name, [], [output], [constant]
        )

    nodes = [
        helper.make_node("MatMul", ["x", "first.weight"], ["h"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node(
            "If", ["positive"], ["r"], then_branch=branch(1, "then"), else_branch=branch(-1, "else")
        ),
        helper.make_node("MatMul", ["r", "second.weight"], ["out"]),
    ]
    weights = {"first.weight": weight, "second.weight": weight, "zero": np.array(0, "f")}
    path = graph(nodes, weights, tmp_path / "m.onnx")
    network = OnnxNetwork(path, {"x": np.ones((2, 4), "f")}, threads=1)
    changed = 3 * weight
    for layer in ("first", "second"):
        quick = next(iter(Replay(network).outputs(layer, changed)))
        np.testing.assert_array_equal(quick, network.outputs(0, {layer: changed}))
        np.testing.assert_array_equal(quick, np.full((2, 4), 3))


def test_weights_that_are_in_no_layer_are_listed(tmp_path):
    def branch(name: str):
        tensors = [numpy_helper.from_array(np.ones((4, 3), "f"), "inner")]
        nodes = [helper.make_node("MatMul", ["h", "inner"], [f"{name}_a"])]
        if name == "then":
            nodes.append(helper.make_node("MatMul", [f"{name}_a", "outer"], [name]))
        else:
            constant = numpy_helper.from_array(np.ones((3, 3), "f"))
            nodes.append(helper.make_node("Constant", [], ["held"], value=constant))
            nodes.append(helper.make_node("MatMul", [f"{name}_a", "held"], [name]))
        return helper.make_graph(
            nodes, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)], tensors
        )

    nodes = [
        helper.make_node("MatMul", ["x", "first.weight"], ["a"]),
        helper.make_node("Add", ["a", "table"], ["b"]),
        helper.make_node("Add", ["b", "bias"], ["h"]),
        helper.make_node("MatMul", ["h", "side.weight"], ["elsewhere"]),
        helper.make_node("If", ["yes"], ["out"], then_branch=branch("then"), else_branch=branch("else")),
    ]
    shapes = {"first.weight": (4, 4), "table": (2, 4), "bias": (4,), "side.weight": (4, 5), "outer": (3, 3)}
    weights = {name: np.ones(shape, "f") for name, shape in shapes.items()}
    weights |= {"unread": np.ones((7, 7), "f"), "yes": np.array(True)}
    path = graph(nodes, weights, tmp_path / "m.onnx")
    network = OnnxNetwork(path, {"x": np.ones((2, 4), "f")}, threads=1)
    assert [each.name for each in network.layers] == ["first"]
    assert network.left_out == {"table": 8, "side.weight": 20, "outer": 9, "inner": 24, "held": 9}


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_biases_are_no_weights(kind, tmp_path):
    torch.manual_seed(0)
    inputs = torch.randn(4, 6, 8)
    path = export(Recurrent(getattr(nn, kind)), inputs, tmp_path / "model.onnx")
    assert OnnxNetwork(path, {"x": inputs.numpy()}, threads=1).left_out == {}


class Stacked(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.first = kind(8, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.second, self.head = kind(12, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x)[0])[0][:, -1])


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("named", [True, False])
def test_recurrent_weights_are_named_by_node_and_input(kind, named, tmp_path):
    torch.manual_seed(0)
    inputs = torch.randn(4, 6, 8)
    model = nn.Sequential(Stacked(getattr(nn, kind)))
    path = export(model, inputs, tmp_path / "model.onnx")
    nodes = [f"0.first.{kind}", f"0.first.{kind}_1", f"0.second.{kind}"]
    if not named:
        model = onnx.load(path)
        for node in model.graph.node:
            node.name = ""
        onnx.save(model, path)
        nodes = [f"{each}_output_0" for each in nodes]
    network = OnnxNetwork(path, {"x": inputs.numpy()}, threads=1)
    names = [layer.name for layer in network.layers]
    assert names == [f"{node}.{weight}" for node in nodes for weight in "WR"] + ["0.head"]
    # Directions, gates and the inputs of the second layer, which are both directions of the first.
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    assert network.layers[2].shape == (gates * 6, 2, 12)
    assert network.layers[3].shape == (gates * 6, 2, 6)
    given = make_allocation(network, uniform(network, "INT8"), "")
    for file in (path, str(tmp_path / "prepared.onnx")):
        if file != path:
            onnx.save(prepared(path), file)
        places = find_places(given, Options(), file).layers
        assert [each.initializer for each in places] == [layer.parameter for layer in network.layers]
        assert all(f"does not quantize the weights of {kind}" in each.obstacle for each in places[:-1])
        assert places[-1].obstacle == ""
