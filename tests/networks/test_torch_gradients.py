"""What one backward pass tells of PyTorch networks: Fisher information, and traces of the Hessian."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import build, digits, pairs, trained_mlp
from torch import nn

from evolve.networks import TorchNetwork, reference_of
from evolve.networks.replay import Replay
from evolve.networks.torch_gradients import fisher_information, hessian_traces


def test_fisher_predicts_the_divergence_of_small_changes():
    network = TorchNetwork(*trained_mlp())
    reference = reference_of(network)
    fisher = fisher_information(network, reference, np.random.default_rng(0), draws=200)
    replay, rng = Replay(network), np.random.default_rng(1)
    for layer in network.layers:
        weights = network.weights(layer.name)
        ratios = []
        for _ in range(30):
            change = (0.005 * weights.std() * rng.standard_normal(weights.shape)).astype(np.float32)
            measured = reference.compare(replay.outputs(layer.name, weights + change)).divergence
            ratios.append(measured / (0.5 * fisher[layer.name] * change**2).sum())
        assert np.mean(ratios) == pytest.approx(1, rel=0.25)


def test_fisher_of_an_embedding_and_a_regression():
    for task in ("embedding", "regression"):
        model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 8))
        network = TorchNetwork(model, [digits()[0][:200]], task=task)
        reference, rng = reference_of(network), np.random.default_rng(0)
        fisher = fisher_information(network, reference, rng, draws=300)
        for layer in network.layers:
            weights, ratios = network.weights(layer.name), []
            for _ in range(20):
                change = (0.01 * weights.std() * rng.standard_normal(weights.shape)).astype(np.float32)
                outputs = [network.outputs(0, {layer.name: weights + change})]
                ratios.append(
                    reference.compare(outputs).divergence / (0.5 * fisher[layer.name] * change**2).sum()
                )
            assert np.mean(ratios) == pytest.approx(1, rel=0.25)


def test_hessian_traces_agree_with_the_exact_ones():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    inputs, labels = torch.randn(30, 6), torch.randint(0, 3, (30,))
    network = TorchNetwork(model, [(inputs, labels)])
    traces, why_not = hessian_traces(network, np.random.default_rng(0), probes=400)
    assert why_not is None

    def loss(weight):
        hidden = torch.tanh(nn.functional.linear(inputs, model[0].weight, model[0].bias))
        return nn.functional.cross_entropy(nn.functional.linear(hidden, weight, model[2].bias), labels)

    exact = torch.autograd.functional.hessian(loss, model[2].weight.detach()).reshape(12, 12).trace() / 12
    assert traces["2"] == pytest.approx(float(exact), rel=0.1)
    assert all(each.grad is None and each.requires_grad for each in model.parameters())


def test_attention_has_second_derivatives_too():
    traces, why_not = hessian_traces(TorchNetwork(*build("language model")), np.random.default_rng(0), 1)
    assert why_not is None
    assert "blocks.0.attn.q_proj" in traces


def test_gradients_that_are_there_stay():
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    for each in model.parameters():
        each.grad = torch.ones_like(each)
    network = TorchNetwork(model, pairs(3, 8, classes=4))
    fisher_information(network, reference_of(network), np.random.default_rng(0))
    hessian_traces(network, np.random.default_rng(0), probes=1)
    assert all((each.grad == 1).all() for each in model.parameters())
    assert not any(each._post_accumulate_grad_hooks for each in model.parameters())


def test_a_shared_weight_has_one_gradient():
    # The information of a sum of uses is not the sum of informations.
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4, bias=False)

        def forward(self, x):
            return self.layer(x) - self.layer(x)

    network = TorchNetwork(Twice(), [torch.randn(20, 4)], task="regression")
    fisher = fisher_information(network, reference_of(network), np.random.default_rng(0))
    np.testing.assert_allclose(fisher["layer"], 0, atol=1e-10)
