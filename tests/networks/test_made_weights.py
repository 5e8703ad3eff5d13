"""Weights that torch's older hooks make before each pass: their parts are no layers, and are named."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from evolve.networks import TorchNetwork
from evolve.networks.torch_layers import find_untold

HOOKS = {
    "weight_norm": (nn.utils.weight_norm, {"0.weight_g": 6, "0.weight_v": 48}),
    "spectral_norm": (nn.utils.spectral_norm, {"0.weight_orig": 48}),
    "prune": (lambda module: prune.random_unstructured(module, "weight", 0.5), {"0.weight_orig": 48}),
    "none": (lambda module: module, {}),
}


def network(hook, first=None):
    torch.manual_seed(0)
    first = first or nn.Linear(8, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(HOOKS[hook][0](first), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    shape = (4, 8) if isinstance(first, nn.Linear) else (4, 8, 5)
    inputs = torch.randn(shape)
    model(inputs)
    return model, inputs


@pytest.mark.parametrize("hook", HOOKS)
def test_parts_of_a_weight_are_named_and_stay(hook):
    model, inputs = network(hook)
    mine = TorchNetwork(model, [inputs])
    assert {each.name for each in mine.layers} == ({"3"} if hook != "none" else {"0", "3"})
    assert mine.left_out == HOOKS[hook][1]
    before = copy.deepcopy(model.state_dict())
    mine.outputs(0, {"3": 2 * mine.weights("3")})
    for name, each in model.state_dict().items():
        assert torch.equal(each, before[name])


@pytest.mark.parametrize("hook", ["weight_norm", "spectral_norm", "prune"])
def test_those_of_convolutions_are_no_stacks(hook):
    model, inputs = network(hook, nn.Conv1d(8, 6, 3))
    assert not find_untold(model)
    assert [each.name for each in TorchNetwork(model, [inputs]).layers] == ["3"]


def test_those_of_recurrent_layers():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = nn.utils.weight_norm(nn.GRU(8, 6, batch_first=True), "weight_hh_l0")

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = made, nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    mine = TorchNetwork(Last(), [torch.randn(4, 5, 8)])
    assert {each.name for each in mine.layers} == {"rnn.weight_ih_l0", "head"}
    assert mine.left_out == {"rnn.weight_hh_l0_g": 18, "rnn.weight_hh_l0_v": 108}


def test_a_plain_tensor_beside_weights_hides_none_of_them():
    class Scaled(nn.Module):
        """Has a tensor whose name only begins as that of a weight does, and another that is no part."""

        def __init__(self):
            super().__init__()
            self.up, self.scale = torch.ones(6), torch.ones(())
            self.up_weight = nn.Parameter(torch.randn(6, 8))
            self.scale_weight = nn.Parameter(torch.randn(3, 6))

        def forward(self, x):
            return (x @ self.up_weight.T * self.up) @ self.scale_weight.T * self.scale

    mine = TorchNetwork(Scaled(), [torch.randn(5, 8)])
    assert [each.name for each in mine.layers] == ["up_weight", "scale_weight"]
