"""Weights that are no parameters of floats: frozen in buffers, quantized or complex. They are named."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from evolve.networks import TorchNetwork


class Net(nn.Module):
    """A linear layer, and another tensor that its forward may use."""

    def __init__(self, tensor, is_buffer, name="extra", persistent=True):
        super().__init__()
        self.head = nn.Linear(16, 4)
        if is_buffer:
            self.register_buffer(name, tensor, persistent=persistent)
        else:
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))

    def forward(self, x):
        return self.head(x)


def left_out(*arguments, **options):
    return TorchNetwork(Net(*arguments, **options), [torch.randn(3, 16)]).left_out


MATRIX = torch.randn(9, 16, generator=torch.Generator().manual_seed(0))
CODES = (20 * MATRIX).round()


@pytest.mark.parametrize(
    "buffer",
    [
        MATRIX,
        MATRIX.half(),
        MATRIX.bfloat16(),
        MATRIX.to(torch.float8_e4m3fn),
        MATRIX.reshape(9, 1, 4, 4),
        CODES.to(torch.int8),
        (CODES + 60).to(torch.uint8),
        MATRIX.sign(),
        # Pruned: zeros, and more than one other number.
        MATRIX.relu(),
    ],
)
def test_a_matrix_in_a_buffer_is_named(buffer):
    assert left_out(buffer, True) == {"extra": 144}
    assert left_out(buffer, True, persistent=False) == {}


@pytest.mark.parametrize(
    "buffer",
    [
        torch.ones(16, 16).tril(),
        torch.full((1, 1, 16, 16), float("-inf")).triu(1),
        torch.ones(16, 16, dtype=torch.uint8).tril(),
        torch.ones(16, 16).tril().bool(),
        torch.zeros(2, 16, 16),
        torch.arange(256).reshape(16, 16),
        torch.randn(256),
        torch.randn(1, 256, 1, 1),
        torch.randn(9, 4),
        torch.eye(16).to_sparse(),
    ],
    ids=[
        "causal",
        "infinite",
        "bytes",
        "bool",
        "cache",
        "positions",
        "statistics",
        "means",
        "anchors",
        "graph",
    ],
)
def test_other_buffers_are_none(buffer):
    assert left_out(buffer, True) == {}


def test_running_statistics_are_none():
    assert left_out(MATRIX, True, name="running_covariance") == {}


@pytest.mark.parametrize("parameter", [torch.complex(MATRIX, MATRIX), CODES.to(torch.int8)])
def test_parameters_that_are_no_floats_are_named(parameter):
    for name in ("extra", "weight"):
        assert left_out(parameter, False, name=name) == {name: 144}
    assert left_out(parameter.flatten(), False) == {}


def test_a_shared_buffer_is_named_once():
    model = Net(MATRIX, True)
    model.inner = Net(MATRIX, True)
    # The inner head is in no layer, for nothing calls it.
    assert TorchNetwork(model, [torch.randn(3, 16)]).left_out == {"extra": 144, "inner.head.weight": 64}


def test_a_pruned_weight_is_named_without_its_mask():
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 4))
    prune.random_unstructured(model[0], "weight", 0.5)
    assert TorchNetwork(model, [torch.randn(3, 16)]).left_out == {"0.weight_orig": 256}
