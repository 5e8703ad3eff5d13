"""An allocation on a real network: the weights that its formats hold, and nothing else changed."""

from __future__ import annotations

import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from small_networks import LanguageModel, residual_network, tokens, trained_mlp

from evolve.allocations import Allocation, LayerChoice, load_allocation, save_allocation
from evolve.errors import FormatError, NetworkError
from evolve.networks import OnnxNetwork, TorchNetwork
from evolve.networks.applying import (
    QuantizedWeights,
    check_place,
    formats_for,
    make_allocation,
    save_quantized,
    size_bits,
    uniform,
)
from evolve.networks.sources import load_to_write
from evolve.quantizers import find_quantizer

MIXED = ("INT4_G32", "FP16", "INT2_G32", "FP32")


@pytest.fixture
def mlp() -> TorchNetwork:
    return TorchNetwork(*trained_mlp(), name="digits")


def mixed(network) -> dict[str, str]:
    return {layer.name: MIXED[at % len(MIXED)] for at, layer in enumerate(network.layers)}


def language_model() -> tuple[torch.nn.Module, list[torch.Tensor]]:
    torch.manual_seed(0)
    return LanguageModel(shared=True), tokens(4)


@pytest.mark.parametrize("build", [trained_mlp, language_model])
def test_a_state_has_what_the_formats_hold_and_all_else_as_it_was(build, tmp_path):
    model, data = build()
    network = TorchNetwork(model, data)
    formats = mixed(network)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    signal = save_quantized(network, formats, tmp_path / "model.pt")
    assert 0 < signal < 60
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert state.keys() == before.keys()
    keys = {layer.parameter: layer for layer in network.layers}
    shared = {"head.weight": "embedding.weight"} if "embedding.weight" in keys else {}
    for name, tensor in state.items():
        layer = keys.get(shared.get(name, name))
        expected = before[name].numpy()
        if layer is not None:
            expected = find_quantizer(formats[layer.name]).dequantized(expected)
        np.testing.assert_array_equal(tensor.numpy(), expected)
    expected = network.outputs(0, QuantizedWeights(network).all(formats))
    try:
        model.load_state_dict(state)
        np.testing.assert_array_equal(TorchNetwork(model, data).outputs(0), expected)
    finally:
        model.load_state_dict(before)
    assert [each.name for each in tmp_path.iterdir()] == ["model.pt"]


def test_an_onnx_model_is_written_without_data_and_runs(tmp_path):
    model, inputs = residual_network().eval(), torch.randn(5, 1, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (inputs,), tmp_path / "one.onnx", dynamo=False, input_names=["x"])
    network = load_to_write(str(tmp_path / "one.onnx"))
    formats = mixed(network)
    save_quantized(network, formats, tmp_path / "two.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "two.onnx")
    (found,) = session.run(None, {"x": inputs.numpy()})
    whole = OnnxNetwork(tmp_path / "one.onnx", {"x": inputs.numpy()}, task="embedding")
    assert [each.name for each in whole.layers] == [each.name for each in network.layers]
    expected = whole.outputs(0, QuantizedWeights(whole).all(formats))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found - whole.outputs(0)).max() > 1e-3


def test_a_format_that_holds_everything_changes_nothing(mlp, tmp_path):
    assert save_quantized(mlp, uniform(mlp, "FP32"), tmp_path / "model.pt") == np.inf
    for name, tensor in torch.load(tmp_path / "model.pt").items():
        assert torch.equal(tensor, mlp.model.state_dict()[name])


def test_sizes_are_those_of_the_formats(mlp):
    weights = sum(layer.num_params for layer in mlp.layers)
    assert size_bits(mlp, uniform(mlp, "FP16")) == 16 * weights
    made = make_allocation(mlp, mixed(mlp), "a test")
    assert size_bits(mlp, mixed(mlp)) == pytest.approx(made.size_bits)


def test_an_allocation_goes_through_its_file(mlp, tmp_path):
    made = make_allocation(mlp, mixed(mlp), "a test", ties=[(0, 4)][:0])
    save_allocation(made, tmp_path / "one.json")
    assert formats_for(mlp, load_allocation(tmp_path / "one.json")) == mixed(mlp)


@pytest.mark.parametrize("kept_bytes", [0, 10_000, 10**9])
def test_weights_are_kept_within_their_room(mlp, kept_bytes):
    store = QuantizedWeights(mlp, kept_bytes)
    for name in ("INT4", "INT8", "INT4"):
        for layer, array in store.all(uniform(mlp, name)).items():
            expected = find_quantizer(name).dequantized(mlp.weights(layer))
            np.testing.assert_array_equal(array, expected)
    held = sum(each.nbytes for each in store._kept.values())
    assert held <= max(kept_bytes, max(4 * layer.num_params for layer in mlp.layers))
    assert kept_bytes < 10**9 or len(store._kept) == 2 * len(mlp.layers)


def changed(network, **changes) -> Allocation:
    """An allocation of which the second layer is another."""
    layers = list(make_allocation(network, mixed(network), "").layers)
    values = vars(layers[1]) | changes
    layers[1] = LayerChoice(**values)
    return Allocation("digits", tuple(layers))


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"name": "other"}, NetworkError, ["another network", "other", "allocation does not have (2)"]),
        ({"shape": (48, 2, 24)}, NetworkError, ["layer 2", "(48, 48)", "(48, 2, 24)", "own profile"]),
        ({"num_params": 47, "shape": None}, NetworkError, ["2304 weights", "found 47 weights"]),
        ({"num_experts": 4}, NetworkError, ["layer 2", "num_experts", "expected 1", "own profile"]),
        ({"num_experts": 4, "shape": None}, NetworkError, ["num_experts", "found 4"]),
        ({"format": "INT9"}, FormatError, ["layer 2", "'INT9'", "INT8"]),
    ],
)
def test_an_allocation_of_something_else_is_refused(mlp, changes, error, said):
    with pytest.raises(error) as refused:
        formats_for(mlp, changed(mlp, **changes))
    for words in said:
        assert words in str(refused.value)


def test_missing_layers_are_named(mlp):
    whole = make_allocation(mlp, mixed(mlp), "")
    with pytest.raises(NetworkError, match=r"1 layers that the allocation does not have \(4\)"):
        formats_for(mlp, Allocation("digits", whole.layers[:-1]))


def test_places_that_cannot_be_written_are_refused(mlp, tmp_path):
    (tmp_path / "there.pt").touch()
    for name, said in (
        ("model.onnx", "ends in .pt or .pth"),
        ("no/model.pt", "no such folder"),
        ("there.pt", "--overwrite"),
    ):
        with pytest.raises(NetworkError, match=said):
            check_place(mlp, tmp_path / name)
    check_place(mlp, tmp_path / "there.pt", overwrite=True)
