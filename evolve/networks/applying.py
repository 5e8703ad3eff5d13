"""Puts an allocation on a real network: its weights quantized and dequantized, and written.

Shapes: L layers.
"""

from __future__ import annotations

import math
import os
import shutil
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from evolve.allocations import Allocation, LayerChoice
from evolve.errors import FormatError, NetworkError
from evolve.fields import Words
from evolve.networks.network import Network, WeightArray, WeightLayer, some
from evolve.outputs import check_output
from evolve.quantizers import Quantizer, find_quantizer

#: Small networks may keep this much, whatever their own size.
LEAST_KEPT = 64 * 2**20
#: How many copies of the weights are kept in other formats.
_COPIES = 4
_CURE = "Give an allocation of this network, from its own profile."


def formats_for(network: Network, allocation: Allocation) -> dict[str, str]:
    """Return the format of each layer of a network by the layer's name, in the network's order.

    Raises:
        NetworkError: The allocation is that of another network: names or shapes differ.
        FormatError: A format is unknown.
    """
    layers = {layer.name: layer for layer in network.layers}
    extra = [each.name for each in allocation.layers if each.name not in layers]
    missing = [name for name in layers if name not in set(allocation.names)]
    if extra or missing:
        said = [
            f"{len(names)} layers that the {whose} does not have ({some(names)})"
            for names, whose in ((extra, "network"), (missing, "allocation"))
            if names
        ]
        raise NetworkError(
            f"the allocation is for another network: there are {' and '.join(said)}",
            file=network.name,
            field="layers",
            cure=_CURE,
        )
    for each in allocation.layers:
        _check_layer(network.name, layers[each.name], each)
    chosen = dict(zip(allocation.names, allocation.formats, strict=True))
    return {name: chosen[name] for name in layers}


def _check_layer(name: str, layer: WeightLayer, choice: LayerChoice) -> None:
    shapes_differ = choice.shape is not None and tuple(choice.shape) != layer.shape
    if shapes_differ or choice.num_params != layer.num_params:
        found = choice.shape if shapes_differ else f"{choice.num_params} weights"
        raise NetworkError(
            "the allocation is for another network",
            file=name,
            place=f"layer {choice.name}",
            field="shape",
            expected=f"{layer.shape}, {layer.num_params} weights, as in the network",
            found=Words(str(found)),
            cure=_CURE,
        )
    # Where no shape is known, nothing is known of what the weight is a stack of, unless it is said.
    known = choice.shape is not None or choice.num_experts != 1
    if known and choice.num_experts != layer.num_experts:
        raise NetworkError(
            "the allocation is for another network",
            file=name,
            place=f"layer {choice.name}",
            field="num_experts",
            expected=f"{layer.num_experts}, as in the network",
            found=choice.num_experts,
            cure=_CURE,
        )
    try:
        find_quantizer(choice.format)
    except FormatError as error:
        raise FormatError(
            error.problem,
            file=name,
            place=f"layer {choice.name}",
            field="format",
            expected=error.expected,
            found=error.found,
        ) from None


def size_bits(network: Network, formats: Mapping[str, str]) -> float:
    """Return the bits of all weights in their formats, scales and zero points counted.

    Args:
        network: The network.
        formats: The format of each layer, by name.
    """
    return math.fsum(
        8 * find_quantizer(formats[layer.name]).num_bytes(layer.shape) for layer in network.layers
    )


def uniform(network: Network, name: str) -> dict[str, str]:
    """Return the allocation of one format to all layers."""
    return {layer.name: name for layer in network.layers}


def make_allocation(
    network: Network,
    formats: Mapping[str, str],
    source: str,
    ties: Sequence[Sequence[int]] = (),
    predicted: Mapping[str, float] | None = None,
) -> Allocation:
    """Return formats of a network as an allocation, with the shapes and the bits of its layers.

    Args:
        network: The network.
        formats: The format of each layer, by name.
        source: What made the allocation.
        ties: Groups of layers, by position in the network, that share a format.
        predicted: What a profile expects of it, by name.
    """
    layers = tuple(
        LayerChoice(
            name=layer.name,
            kind=layer.kind,
            num_params=layer.num_params,
            shape=layer.shape,
            format=formats[layer.name],
            bits=find_quantizer(formats[layer.name]).bits(layer.shape),
            aliases=layer.aliases,
            channel_axis=layer.channel_axis,
            num_experts=layer.num_experts,
        )
        for layer in network.layers
    )
    return Allocation(network.name, layers, tuple(map(tuple, ties)), source, predicted or {})


class QuantizedWeights:
    """A network's weights in other formats, those used last kept.

    Args:
        network: The network.
        kept_bytes: Memory for them; by default four times what the weights take.
    """

    def __init__(self, network: Network, kept_bytes: int | None = None) -> None:
        self._network = network
        weights = 4 * sum(layer.num_params for layer in network.layers)
        self._room = max(LEAST_KEPT, _COPIES * weights) if kept_bytes is None else kept_bytes
        self._kept: OrderedDict[tuple[str, str], WeightArray] = OrderedDict()

    def of(self, layer: str, quantizer: Quantizer) -> WeightArray:
        """Return a layer's weights as a format keeps them, output channels first, float32."""
        key = layer, quantizer.name
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made: WeightArray = quantizer.dequantized(self._network.weights(layer))
        self._kept[key] = made
        self._room -= made.nbytes
        while self._room < 0 and len(self._kept) > 1:
            self._room += self._kept.popitem(last=False)[1].nbytes
        return made

    def all(self, formats: Mapping[str, str]) -> dict[str, WeightArray]:
        """Return the weights of layers in their formats, by name."""
        return {layer: self.of(layer, find_quantizer(name)) for layer, name in formats.items()}


def check_place(network: Network, path: Path, overwrite: bool = False, inputs: Collection[Path] = ()) -> None:
    """Refuse a file that cannot be written, is read, or does not end as the network's files do.

    Raises:
        NetworkError: It is such a file.
    """
    check_output(path, network.endings, overwrite, error=NetworkError, inputs=inputs)
    if path.suffix == ".onnx":
        check_output(tensors_beside(path), (".data",), overwrite, error=NetworkError, inputs=inputs)


def tensors_beside(path: Path) -> Path:
    """Return where the tensors of an ONNX model stand if it is too large for one file."""
    return path.with_name(f"{path.name}.data")


def files_of(path: Path) -> list[Path]:
    """Return the files of a network that was written: the one it was to be, and that of its tensors."""
    beside = tensors_beside(path)
    return [path, beside] if path.suffix == ".onnx" and beside.exists() else [path]


def save_quantized(network: Network, formats: Mapping[str, str], path: Path) -> float:
    """Write a network with its weights quantized and dequantized; the file appears whole or not at all.

    A large ONNX model has its tensors in a second file, which is moved to its place before the first. That of
    an older model of this name goes with it.

    Args:
        network: The network.
        formats: The format of each layer, by name.
        path: A PyTorch state (``.pt``) or an ONNX model.

    Returns:
        The signal-to-quantization-noise ratio of all weights together, in dB; infinite if none changed.

    Raises:
        NetworkError: It cannot be written.
    """
    weights = QuantizedWeights(network).all(formats)
    # A folder, for the file knows the second one by its final name.
    aside = path.with_name(f".{path.stem}.{os.getpid()}.partial")
    try:
        aside.mkdir()
        network.save(aside / path.name, weights)
        has_tensors = tensors_beside(aside / path.name).exists()
        for each in sorted(aside.iterdir(), key=lambda file: file.name == path.name):
            each.replace(path.with_name(each.name))
        if path.suffix == ".onnx" and not has_tensors:
            tensors_beside(path).unlink(missing_ok=True)
    except (OSError, RuntimeError) as fault:
        raise NetworkError(f"cannot be written ({fault})", file=path) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    signal = noise = 0.0
    for layer, array in weights.items():
        before = network.weights(layer).astype(np.float64)
        signal += float((before**2).sum())
        noise += float(((array - before) ** 2).sum())
    return 10 * math.log10(signal / noise) if noise and signal else math.inf
