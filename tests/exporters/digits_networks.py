"""Small trained networks, and what they lose with the weights an export means."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from export_cases import layer
from sklearn.datasets import load_digits
from torch import nn

from evolve.allocations import Allocation
from evolve.exporters import Export
from evolve.quantizers import find_quantizer

torch.set_num_threads(1)


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


@cache
def _trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    images, labels = digits()
    model = _untrained()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[:1400]), labels[:1400]).backward()
        optimizer.step()
    return model.state_dict()


def _untrained() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.LayerNorm(64), nn.Linear(64, 10)
    )


def trained_mlp() -> nn.Sequential:
    """A classifier of digits, right in 95 % of those it has not seen; a new copy each time."""
    model = _untrained()
    model.load_state_dict(_trained())
    return model.eval().requires_grad_(False)


LAYERS = ("0", "2", "4", "5")


def mlp_allocation(*formats: str) -> Allocation:
    """The formats of the three matrices; the norm between them is left alone."""
    shapes = {"0": (96, 64), "2": (64, 96), "5": (10, 64)}
    kinds = {"0": "Linear", "2": "Linear", "5": "Classifier"}
    matrices = [
        layer(name, kinds[name], shapes[name], each) for name, each in zip(shapes, formats, strict=True)
    ]
    return Allocation("mlp", (*matrices[:2], layer("4", "LayerNorm", (64,), "FP32"), matrices[2]))


def loss(model: nn.Module) -> float:
    """Mean cross entropy on digits that were not trained on."""
    images, labels = digits()
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(images[1400:]), labels[1400:]))


def our_weights(model: nn.Module, export: Export) -> dict[str, torch.Tensor]:
    """Return the weights that our quantizers leave of each layer in the format that was written."""
    weights = {}
    for each in export.layers:
        weight = model.get_submodule(each.layer).weight.detach().numpy()
        weights[each.layer] = torch.from_numpy(find_quantizer(each.format).dequantized(weight))
    return weights


def our_loss(model: nn.Module, export: Export) -> float:
    """Return the loss of a network with the weights our quantizers leave."""
    for name, weight in our_weights(model, export).items():
        model.get_submodule(name).weight.data = weight
    return loss(model)


def steps_apart(model: nn.Module, export: Export, theirs: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Return how far two sets of weights are apart at most, in steps of our quantizer between its levels.

    For formats of integers; both are within half a step of the weights themselves, or a little more where
    scales differ.
    """
    ours = our_weights(model, export)
    apart = {}
    for each in export.layers:
        if each.format.startswith("INT"):
            quantizer = find_quantizer(each.format)
            weight = model.get_submodule(each.layer).weight.detach().numpy()
            scales = quantizer.encode(weight).scales
            steps = np.repeat(scales.astype(np.float32), weight.size // scales.size).reshape(weight.shape)
            distance = np.abs(ours[each.layer].numpy() - theirs[each.layer].numpy())
            apart[each.layer] = float((distance / steps).max())
    return apart
