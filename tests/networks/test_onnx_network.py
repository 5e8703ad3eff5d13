"""ONNX networks: the same numbers as the PyTorch networks they were exported from."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from onnx_files import export, graph
from small_networks import LanguageModel, residual_network, trained_mlp
from torch import nn

from evolve.errors import NetworkError
from evolve.networks import OnnxNetwork, TorchNetwork, find_ties, profile_network
from evolve.networks.replay import Replay

FORMATS = ("INT4", "INT8", "FP32")


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
