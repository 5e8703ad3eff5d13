"""Finds the weight layers of a PyTorch module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evolve.networks.network import WeightArray, WeightLayer, product_kind
from evolve.networks.torch_products import ProductAxes

_Products = Mapping[str, ProductAxes]
_NONE: _Products = MappingProxyType({})

#: Buffers of fewer numbers are constants of the network's code, such as anchors.
_MANY = 64

#: Where torch has modules that only hold parameters.
_HOLDERS = ("torch.nn.modules.container", "torch.nn.modules.module")
#: The modules, others made of them too, whose weights are used in a way that is known.
_KNOWN = (
    *(nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.MultiheadAttention),
    *(nn.RNNBase, nn.RNNCellBase, nn.modules.conv._ConvNd),
)
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
        is_stack: Whether its first axis is that of several matrices, as the experts of a mixture are.
    """

    name: str
    kind: str
    key: str
    tensor: nn.Parameter
    channel_axis: int
    aliases: tuple[str, ...] = ()
    is_stack: bool = False

    @property
    def described(self) -> WeightLayer:
        """What others need to know of it."""
        shape = list(self.tensor.shape)
        shape.insert(0, shape.pop(self.channel_axis))
        if self.is_stack:
            channels, experts, inputs = shape
            shape = [experts * channels, inputs]
        return WeightLayer(
            self.name,
            self.kind,
            tuple(shape),
            self.key,
            8 * self.tensor.element_size(),
            self.aliases,
            self.channel_axis,
            self.tensor.shape[0] if self.is_stack else 1,
        )

    def channels_first(self, array: NDArray[np.float32]) -> WeightArray:
        """Return an array laid out as the parameter with its output channels first, those of all experts."""
        if self.is_stack:
            moved = np.moveaxis(array, self.channel_axis, 1)
            return np.array(moved.reshape(-1, moved.shape[2]), order="C")
        # A copy: the parameter's own memory must not change with it, nor it with the parameter.
        return np.array(np.moveaxis(array, self.channel_axis, 0), order="C")

    def own_layout(self, weights: WeightArray) -> WeightArray:
        """Return weights, output channels first, laid out as the parameter."""
        if self.is_stack:
            stack = weights.reshape(len(self.tensor), -1, weights.shape[1])
            return np.ascontiguousarray(np.moveaxis(stack, 1, self.channel_axis))
        return np.ascontiguousarray(np.moveaxis(weights, 0, self.channel_axis))


def find_torch_layers(model: nn.Module, products: _Products = _NONE) -> list[TorchLayer]:
    """Return the weight layers of a model, shared ones once, in the order of its modules.

    Biases are none, nor are parameters of a module that torch does not know unless they are named
    ``…weight…`` and have two axes or more, or are known to be stacked matrices.

    Args:
        model: The model.
        products: How matrices are multiplied with data, by the parameter's name, where only that tells.
    """
    layers: dict[int, TorchLayer] = {}
    for path, module in model.named_modules():
        found = list(_weights_of(path, module, products))
        for key, parameter, kind in found:
            single = len(found) == 1 and key == "weight" and path
            full = ".".join(filter(None, (path, key)))
            name = path if single else full
            known = layers.get(id(parameter))
            if known is None:
                used = products.get(full)
                axis = _channel_axis(module, parameter) if used is None else used.channels
                is_stack = used is not None and parameter.ndim == 3
                layers[id(parameter)] = TorchLayer(name, kind, full, parameter, axis, is_stack=is_stack)
            else:
                layers[id(parameter)] = replace(known, aliases=(*known.aliases, name))
    return list(layers.values())


def find_untold(model: nn.Module) -> list[str]:
    """Return the parameters, by name, of which only their use tells what their axes are.

    Those of three axes may be stacked matrices; those of two, in modules that torch does not know, may have
    their output channels along either.
    """
    kinds = {id(each.tensor): each.kind for each in find_torch_layers(model)}
    named = ("Linear", "Attention")  # by their names, which say nothing of their axes
    untold = []
    for module, name, each in _parameters(model):
        kind = kinds.get(id(each))
        may_be_stack = each.ndim == 3 and len(each) > 1 and kind in (None, *named)
        key = name.rpartition(".")[2]
        may_be_either = each.ndim == 2 and "weight" in key and kind in named and not _is_known(module)
        part = _is_part(module, key)
        if (may_be_stack or may_be_either) and each.is_floating_point() and not part:
            untold.append(name)
    return untold


def find_left_out(model: nn.Module, layers: Iterable[TorchLayer]) -> dict[str, int]:
    """Return the number of weights of each tensor of two axes or more that is in no layer, by its name.

    Such are the parts that a parametrization makes a weight of, positions that are added to embeddings,
    complex and quantized parameters, and matrices that are buffers.
    """
    taken = {id(layer.tensor) for layer in layers}
    left = {
        name: each.numel()
        for _, name, each in _parameters(model)
        if (_may_be_weights(each) or each.is_complex()) and id(each) not in taken
    }
    return left | {name: each.numel() for name, each in _stored_buffers(model) if _is_matrix(name, each)}


def _may_be_weights(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.dtype in (torch.int8, torch.uint8)


def _stored_buffers(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the buffers that a file of the model has, each once."""
    seen = set()
    for path, module in model.named_modules():
        for key, each in module.named_buffers(recurse=False):
            if key not in getattr(module, "_non_persistent_buffers_set", ()) and id(each) not in seen:
                seen.add(id(each))
                yield ".".join(filter(None, (path, key))), each


def _is_matrix(name: str, buffer: torch.Tensor) -> bool:
    """Whether a buffer has weights, as a frozen projection, and is no statistics, mask or empty cache."""
    key = name.rpartition(".")[2]
    wide = sum(size > 1 for size in buffer.shape) > 1 and buffer.numel() >= _MANY
    if not wide or not _may_be_weights(buffer) or key.startswith("running_") or key.endswith("bias"):
        return False
    if buffer.layout is not torch.strided or buffer.is_meta:
        return False
    values = buffer.detach().float()
    others = values[values != 0]
    return others.numel() == values.numel() or not bool((others == others[:1]).all())


def _parameters(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Yield the parameters of two axes or more that are no biases, each once: module, name and parameter."""
    seen = set()
    for path, module in model.named_modules():
        for key, each in module.named_parameters(recurse=False):
            # The biases of experts are stacked too, and are no matrices.
            if each.ndim > 1 and each.numel() and not key.endswith("bias") and id(each) not in seen:
                seen.add(id(each))
                yield module, ".".join(filter(None, (path, key))), each


def _is_part(module: nn.Module, key: str) -> bool:
    """Whether a weight is made of a parameter before each pass, as older ``weight_norm`` and pruning do.

    The weight is then a plain tensor, and its parts are called as it is and something more.
    """
    made = (name for name, each in vars(module).items() if isinstance(each, torch.Tensor))
    return any(key.startswith(f"{name}_") and "weight" not in key.removeprefix(name) for name in made)


def _weights_of(path: str, module: nn.Module, products: _Products) -> Iterator[tuple[str, nn.Parameter, str]]:
    for key, parameter in module.named_parameters(recurse=False):
        kind = None if _is_part(module, key) else _kind(path, module, key, parameter)
        if kind is None and ".".join(filter(None, (path, key))) in products:
            kind = product_kind(path, type(module).__name__, key)
        if kind is not None and parameter.numel() and parameter.is_floating_point():
            yield key, parameter, kind


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
    return 1 if _is_gpt2_linear(module) and parameter.ndim == 2 else 0


def _is_known(module: nn.Module) -> bool:
    place = type(module).__module__
    is_torchs = place.startswith(("torch.nn.", "torch.ao.")) and place not in _HOLDERS
    return is_torchs or isinstance(module, _KNOWN) or _is_gpt2_linear(module)


def _is_gpt2_linear(module: nn.Module) -> bool:
    """Whether a module is the linear layer of GPT-2, which is none of torch: (in, out)."""
    return type(module).__name__ == "Conv1D"
