"""Finds the weight layers of a PyTorch module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from evolve.networks.network import product_kind

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, eq=False)
class TorchLayer:
    """A weight layer and its parameter.

    Attributes:
        name: The module's path, or the parameter's where the module has several.
        kind: A layer type; the classifier is still a ``Linear``.
        key: The parameter's path.
        tensor: The parameter.
        channel_axis: Which of its axes is the output channel.
        aliases: The names it has in other modules that use it too.
    """

    name: str
    kind: str
    key: str
    tensor: nn.Parameter
    channel_axis: int
    aliases: tuple[str, ...] = ()


def find_torch_layers(model: nn.Module) -> list[TorchLayer]:
    """Return the weight layers of a model, shared ones once, in the order of its modules.

    Biases are none, nor are parameters of a module that torch does not know unless they are named
    ``…weight…`` and have two axes or more.
    """
    layers: dict[int, TorchLayer] = {}
    for path, module in model.named_modules():
        found = list(_weights_of(path, module))
        for key, parameter, kind, axis in found:
            single = len(found) == 1 and key == "weight" and path
            name = path if single else ".".join(filter(None, (path, key)))
            full = ".".join(filter(None, (path, key)))
            known = layers.get(id(parameter))
            if known is None:
                layers[id(parameter)] = TorchLayer(name, kind, full, parameter, axis)
            else:
                layers[id(parameter)] = replace(known, aliases=(*known.aliases, name))
    return list(layers.values())


def find_left_out(model: nn.Module) -> dict[str, int]:
    """Return the number of weights of each parameter of two axes or more that is in no layer, by its name.

    Such are the stacked experts of a mixture, the parts that a parametrization makes a weight of, and
    positions that are added to embeddings.
    """
    taken = {id(layer.tensor) for layer in find_torch_layers(model)}
    return {
        name: parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1
        and parameter.numel()
        and parameter.is_floating_point()
        and id(parameter) not in taken
    }


def _weights_of(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Parameter, str, int]]:
    for key, parameter in module.named_parameters(recurse=False):
        kind = _kind(path, module, key, parameter)
        if kind is not None and parameter.numel() and parameter.is_floating_point():
            yield key, parameter, kind, _channel_axis(module, parameter)


def _kind(path: str, module: nn.Module, key: str, parameter: torch.Tensor) -> str | None:
    if "weight" not in key:
        return None
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return "Embedding"
    # Also quantization-ready and other convolutions that only call themselves so.
    if isinstance(module, nn.modules.conv._ConvNd):
        return "Conv"
    if parameter.ndim == 1:
        return "LayerNorm" if "norm" in type(module).__name__.lower() else None
    if isinstance(module, nn.MultiheadAttention):
        return "Attention"
    return product_kind(path, type(module).__name__)


def _channel_axis(module: nn.Module, parameter: torch.Tensor) -> int:
    if isinstance(module, _TRANSPOSED):
        return 1
    # The linear layer of GPT-2, which is none of torch: (in, out).
    return 1 if type(module).__name__ == "Conv1D" and parameter.ndim == 2 else 0
