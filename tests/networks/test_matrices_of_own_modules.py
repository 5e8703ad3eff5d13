"""Matrices of modules that torch does not know: their use tells which axis has the output channels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evolve.networks import TorchNetwork
from evolve.networks.torch_layers import find_torch_layers, find_untold
from evolve.networks.torch_products import ProductAxes, find_products
from evolve.quantizers import find_quantizer

IN, OUT = 8, 12
#: What a module makes of its inputs and its weight, and the axis of the output channels.
USES = {
    "right": (lambda x, w: x @ w, 1),
    "right_of_three_axes": (lambda x, w: x[:, None].repeat(1, 3, 1) @ w, 1),
    "einsum": (lambda x, w: torch.einsum("bi,io->bo", x, w), 1),
    "addmm": (lambda x, w: torch.addmm(torch.zeros(w.shape[1]), x, w), 1),
    "half": (lambda x, w: x.bfloat16() @ w.bfloat16(), 1),
    "linear": (nn.functional.linear, 0),
    "transposed": (lambda x, w: x @ w.T, 0),
    "left": (lambda x, w: (w @ x.T).T, 0),
    "einsum_of_rows": (lambda x, w: torch.einsum("bi,oi->bo", x, w), 0),
}


class Own(nn.Module):
    def __init__(self, use, *, square=False):
        super().__init__()
        self.use, axis = USES[use]
        out = IN if square else OUT
        self.weight = nn.Parameter(torch.randn((IN, out) if axis else (out, IN)))

    def forward(self, x):
        return self.use(x, self.weight)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("square", [False, True])
def test_the_use_tells_the_channels(use, square):
    model, axis = nn.Sequential(Own(use, square=square)), USES[use][1]
    assert find_untold(model) == ["0.weight"]
    found = find_products(dict(model.named_parameters()), lambda: model(torch.randn(5, IN)))
    assert found == {"0.weight": ProductAxes(axis, 1 - axis)}
    (layer,) = find_torch_layers(model, found)
    assert (layer.channel_axis, layer.is_stack) == (axis, False)
    assert layer.described.shape == (IN if square else OUT, IN)
    weight = model[0].weight.detach()
    rows = layer.channels_first(weight.numpy())
    assert torch.equal(torch.from_numpy(rows), weight.T if axis else weight)
    assert torch.equal(torch.from_numpy(layer.own_layout(rows)), weight)


def test_what_is_no_product_stays_as_it_was():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(IN, OUT))

        def forward(self, x):
            return (x @ (2 * self.weight)) * self.weight.sum()

    model = Scaled()
    found = find_products(dict(model.named_parameters()), lambda: model(torch.randn(5, IN)))
    assert found == {}
    (layer,) = find_torch_layers(model, found)
    assert (layer.channel_axis, layer.described.shape) == (0, (IN, OUT))


def test_what_only_holds_a_parameter_does_not_tell():
    model = nn.Module()
    model.inner = nn.Module()
    model.inner.weight = nn.Parameter(torch.randn(4, 4))
    model.held = nn.ParameterDict({"weight": torch.randn(4, 4), "scale": torch.randn(4, 4)})
    assert find_untold(model) == ["inner.weight", "held.weight"]


class Mine(nn.Linear):
    """Another linear layer, as those that train quantized weights."""


class Conv1D(nn.Module):
    """Called as GPT-2's linear layer, which has a rule of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))


def test_ordinary_modules_need_no_run():
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    products = (nn.Linear(4, 4), Mine(4, 4), Conv1D(), nn.Conv1d(4, 4, 3), normed)
    tables = (nn.Embedding(4, 4), nn.EmbeddingBag(4, 4), nn.LayerNorm([4, 4]))
    recurrent = (nn.LSTM(4, 4), nn.GRUCell(4, 4))
    attention = (nn.MultiheadAttention(4, 2, kdim=3, vdim=3), nn.TransformerEncoderLayer(4, 2))
    assert find_untold(nn.ModuleList([*products, *tables, *recurrent, *attention])) == []


@pytest.mark.parametrize("use", ["right", "linear"])
def test_scales_are_those_of_the_output_channels(use):
    torch.manual_seed(0)
    model, axis = nn.Sequential(nn.Linear(IN, IN), Own(use), nn.Linear(OUT, 3)), USES[use][1]
    # Channels of different sizes, so that one scale for several would show.
    sizes = torch.logspace(-2, 2, OUT)
    model[1].weight.data *= sizes if axis else sizes[:, None]
    before = model[1].weight.detach().clone()
    network = TorchNetwork(model, [torch.randn(5, IN)])
    layer = next(each for each in network.layers if each.name == "1")
    assert (layer.shape, layer.channel_axis, layer.num_experts) == ((OUT, IN), axis, 1)
    changed = find_quantizer("INT8").dequantized(network.weights("1"))
    with network.replaced({"1": changed}):
        error = model[1].weight.detach() - before
    assert error.any()
    assert ((error.T if axis else error).abs().amax(1) < 0.05 * sizes).all()
