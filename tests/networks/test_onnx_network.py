"""ONNX networks: the same numbers as the PyTorch networks they were exported from."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from small_networks import LanguageModel, Recurrent, residual_network, trained_mlp
from torch import nn

from evolve.errors import NetworkError
from evolve.exporters.export import Options
from evolve.exporters.onnx_lookup import find_places, prepared
from evolve.networks import OnnxNetwork, TorchNetwork, find_ties, profile_network
from evolve.networks.applying import make_allocation, uniform
from evolve.networks.checking import check_allocations
from evolve.networks.joint_measuring import JointMeasurer
from evolve.networks.replay import Replay

FORMATS = ("INT4", "INT8", "FP32")


def export(model: nn.Module, inputs: torch.Tensor, path, **options) -> str:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (inputs,),
            buffer,
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
            **options,
        )
    path.write_bytes(buffer.getvalue())
    return str(path)


@pytest.fixture
def mlp(tmp_path):
    model, data = trained_mlp()
    images, labels = (torch.cat([batch[part] for batch in data]).numpy() for part in (0, 1))
    return export(model, data[0][0], tmp_path / "mlp.onnx"), {"x": images, "labels": labels}


def networks(kind: str, tmp_path, **options) -> tuple[TorchNetwork, OnnxNetwork]:
    torch.manual_seed(0)
    if kind in ("language", "shared"):
        model, inputs, labels = LanguageModel(shared=kind == "shared"), torch.randint(0, 20, (12, 8)), None
        # The exporter makes one of those that are equal.
        for norm in (each for each in model.modules() if isinstance(each, nn.LayerNorm)):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    else:
        model, inputs, labels = residual_network(), torch.randn(12, 1, 8, 8), torch.randint(0, 10, (12,))
    path = export(model, inputs, tmp_path / "model.onnx", **options)
    data = {"x": inputs.numpy()} | ({} if labels is None else {"labels": labels.numpy()})
    mine = TorchNetwork(model, [inputs if labels is None else (inputs, labels)])
    return mine, OnnxNetwork(path, data, batch_size=5, threads=1)


UNFOLDED = {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}


@pytest.mark.parametrize(
    ("kind", "options"),
    [("language", {}), ("language", UNFOLDED), ("shared", {}), ("shared", UNFOLDED), ("residual", UNFOLDED)],
)
def test_layers_and_numbers_agree_with_torch(kind, options, tmp_path):
    mine, theirs = networks(kind, tmp_path, **options)
    described = [sorted((each.name, each.kind, each.shape) for each in net.layers) for net in (mine, theirs)]
    assert described[0] == described[1]
    assert find_ties(mine) == find_ties(theirs) != ()
    assert theirs.num_batches == 3
    assert mine.task == theirs.task
    replays = Replay(mine), Replay(theirs)
    for layer in theirs.layers:
        np.testing.assert_array_equal(mine.weights(layer.name), theirs.weights(layer.name))
        weights = theirs.weights(layer.name)
        noise = np.random.default_rng(0).normal(0, 0.2, weights.shape)
        changed = (weights + noise).astype(np.float32)
        plain = [theirs.outputs(at, {layer.name: changed}) for at in range(3)]
        quick = list(replays[1].outputs(layer.name, changed))
        for one, other in zip(plain, quick, strict=True):
            np.testing.assert_array_equal(one, other)
        exact = next(iter(replays[0].outputs(layer.name, changed)))
        np.testing.assert_allclose(np.concatenate(quick), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, UNFOLDED])
def test_an_embedding_that_is_the_last_layer_too_stays_one_weight(options, tmp_path):
    _, network = networks("shared", tmp_path, **options)
    changed = {"embedding": 2 * network.weights("embedding")}
    network.save(tmp_path / "saved.onnx", changed)
    saved = onnx.load(tmp_path / "saved.onnx")
    assert [tuple(each.dims) for each in saved.graph.initializer].count((20, 16)) == 1
    assert (16, 20) not in [tuple(each.dims) for each in saved.graph.initializer]
    again = OnnxNetwork(tmp_path / "saved.onnx", {"x": np.arange(8)[None]}, task="language", threads=1)
    assert [each.name for each in again.layers] == [each.name for each in network.layers]
    session = onnxruntime.InferenceSession(tmp_path / "saved.onnx")
    for batch in range(3):
        made = session.run(None, network.inputs(batch))[0]
        np.testing.assert_allclose(made, network.outputs(batch, changed), rtol=1e-4, atol=1e-5)


def test_a_block_that_is_called_twice_has_its_weights_once(tmp_path):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    model = nn.Sequential(nn.Conv2d(1, 8, 3), block, block, nn.Flatten(), nn.Linear(288, 10))
    images = torch.randn(6, 1, 8, 8)
    path = export(model, images, tmp_path / "model.onnx")
    # The exporter folds the norm into two equal weights and has the second as another name of the first.
    assert "Identity" in {node.op_type for node in onnx.load(path).graph.node}
    network = OnnxNetwork(path, {"x": images.numpy()}, threads=1)
    assert [each.shape for each in network.layers] == [(8, 1, 3, 3), (8, 8, 3, 3), (10, 288)]
    name = network.layers[1].name
    changed = {name: network.weights(name) + np.float32(0.1)}
    block[0].weight.data += 0.1 * (1 + block[1].eps) ** 0.5
    expected = model.eval()(images).detach().numpy()
    np.testing.assert_allclose(network.outputs(0, changed), expected, rtol=1e-4, atol=1e-5)
    (quick,) = Replay(network).outputs(name, changed[name])
    np.testing.assert_array_equal(quick, network.outputs(0, changed))
    network.save(tmp_path / "saved.onnx", changed)
    shapes = [tuple(each.dims) for each in onnx.load(tmp_path / "saved.onnx").graph.initializer]
    assert shapes.count((8, 8, 3, 3)) == 1
    made = onnxruntime.InferenceSession(tmp_path / "saved.onnx").run(None, {"x": images.numpy()})[0]
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


def test_folded_norms_leave_convolutions(tmp_path):
    _, theirs = networks("residual", tmp_path)
    assert {each.kind for each in theirs.layers} == {"Conv", "Classifier"}
    assert [len(group) for group in find_ties(theirs)] == [2]


def test_a_profile_agrees_with_torchs(mlp):
    path, data = mlp
    theirs = profile_network(OnnxNetwork(path, data, threads=1), FORMATS)
    mine = profile_network(TorchNetwork(*trained_mlp()), FORMATS)
    assert theirs.layer_names == mine.layer_names
    assert theirs.layer_type == mine.layer_type
    np.testing.assert_allclose(theirs.loss, mine.loss, rtol=1e-3, atol=1e-9)
    for name in ("weight_std", "activation_range", "layer_bits"):
        np.testing.assert_allclose(getattr(theirs, name), getattr(mine, name), rtol=1e-5)
    for name in ("squared_error", "input_rms", "condition_number", "change_of_accuracy"):
        np.testing.assert_allclose(theirs.measurements[name], mine.measurements[name], rtol=1e-5, atol=1e-12)
    # Both estimate the same by different random directions.
    np.testing.assert_allclose(theirs.measurements["fisher"], mine.measurements["fisher"], rtol=1)


def test_the_changed_model_is_a_model(mlp):
    path, data = mlp
    network = OnnxNetwork(path, data, batch_size=400, threads=1)
    changed = {"2": network.weights("2") * np.float32(0.5)}
    session = onnxruntime.InferenceSession(network.model_with(changed).SerializeToString())
    expected = network.outputs(0, changed)
    np.testing.assert_allclose(session.run(None, {"x": data["x"]})[0], expected, rtol=1e-4, atol=1e-5)


def graph(nodes, weights, path, inputs=(("x", [None, 4]),)):
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in weights.items()],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: {"labels": data["labels"]}, ["arrays missing", "x", "numpy.savez"]),
        (lambda data: {**data, "labels": data["labels"][:5]}, ["arrays do not fit", "same number"]),
        (lambda data: {**data, "labels": data["labels"] + 50}, ["labels do not fit", "below 10"]),
        (lambda data: {**data, "x": data["x"][:, :3]}, ["does not run", "batch 0"]),
        (lambda data: {"x": data["x"][:0], "labels": data["labels"][:0]}, ["arrays do not fit"]),
    ],
)
def test_bad_data_are_explained(mlp, change, said):
    path, data = mlp
    with pytest.raises(NetworkError) as caught:
        OnnxNetwork(path, change(data))
    assert all(words in str(caught.value) for words in said), caught.value


def test_initializers_among_the_inputs_are_not_asked_for(mlp, tmp_path):
    path, data = mlp
    model = onnx.load(path)
    for each in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    model.ir_version = 3
    onnx.save(model, tmp_path / "old.onnx")
    old, new = (OnnxNetwork(each, data, threads=1) for each in (tmp_path / "old.onnx", path))
    assert old.num_batches == new.num_batches > 1
    assert old.provenance["data_sha256"] == new.provenance["data_sha256"]
    changed = {"2": 2 * old.weights("2")}
    np.testing.assert_array_equal(old.outputs(1, changed), new.outputs(1, changed))
    saved = old.model_with(changed)
    onnx.checker.check_model(saved)
    session = onnxruntime.InferenceSession(saved.SerializeToString())
    result = session.run(None, {"x": data["x"][64:128]})[0]
    np.testing.assert_allclose(result, new.outputs(1, changed), rtol=1e-4, atol=1e-5)


def test_a_label_beyond_the_classes_is_named(mlp):
    path, data = mlp
    labels = data["labels"].copy()
    labels[5] = 12
    with pytest.raises(NetworkError) as caught:
        OnnxNetwork(path, {"x": data["x"], "labels": labels})
    for words in (
        "labels do not fit",
        "whole numbers below 10",
        "label 12 of sample 5",
        "Number the classes",
    ):
        assert words in str(caught.value)
    labels[5] = -1
    assert OnnxNetwork(path, {"x": data["x"], "labels": labels}).task == "classification"


@pytest.mark.parametrize("squeezed", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_one_logit_of_two_classes_is_refused_with_a_cure(squeezed, labelled, tmp_path):
    torch.manual_seed(0)
    inputs = torch.randn(6, 8)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1), *[nn.Flatten(0)] * squeezed)
    path = export(model, inputs, tmp_path / "model.onnx")
    data = {"x": inputs.numpy()} | ({"labels": np.array([0, 1, 1, 0, 1, 0])} if labelled else {})
    cure = r"torch\.stack\(" if squeezed else r"torch\.cat\("
    with pytest.raises(NetworkError, match=f"one output for all classes.*{cure}.*--task regression"):
        OnnxNetwork(path, data, task=None if labelled else "classification")
    assert OnnxNetwork(path, data, task="regression").task == "regression"


def test_bad_models_are_explained(tmp_path, mlp):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(NetworkError, match="cannot be read"):
        OnnxNetwork(tmp_path / "bad.onnx", mlp[1])
    path = graph([helper.make_node("Relu", ["x"], ["out"])], {}, tmp_path / "m.onnx")
    with pytest.raises(NetworkError, match="no weight layers"):
        OnnxNetwork(path, {"x": np.ones((2, 4), "f")})
    with pytest.raises(NetworkError, match="unknown task"):
        OnnxNetwork(mlp[0], mlp[1], task="nothing")
