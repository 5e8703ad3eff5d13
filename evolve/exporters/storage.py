"""How a format stores weights: what the rule that rounds to a target's formats looks at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from evolve.allocations import Allocation, LayerChoice
from evolve.errors import InputError
from evolve.exporters.experts import is_stack, split_stack
from evolve.quantizers import QUANTIZERS, Quantizer
from evolve.quantizers.grouping import Granularity

PLAIN = ("FP32", "FP16", "BF16")
"""Formats that are no quantization: a target leaves such a layer alone."""

_SCALE_BITS = 16
_CLIPPINGS = ("_MSE", "_OCTAV")


@dataclass(frozen=True)
class Storage:
    """How a layer's weights are stored.

    Attributes:
        name: The format, without the way it is clipped.
        family: ``integer``, ``float`` or ``codebook``; empty where it is not known.
        code_bits: Bits of a weight's code, without scales.
        bits: Bits per weight, scales and zero points counted.
        symmetric: Whether it has no zero point.
        settings: How the target says it.
        same: Names of formats that are stored just so.
        granularity: Which weights share a scale. A float of 8 bits or more hardly needs one, so that one for
            the whole tensor counts as one for each channel.
    """

    name: str
    family: str
    code_bits: float
    bits: float
    symmetric: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    same: tuple[str, ...] = ()
    granularity: Granularity = "channel"


def is_clipped(name: str) -> bool:
    """Return whether a format's name says how it is clipped."""
    return name.endswith(_CLIPPINGS)


def stored_name(name: str) -> str:
    """Return a format's name without the way it is clipped, which does not change how it is stored."""
    for ending in _CLIPPINGS:
        name = name.removesuffix(ending)
    return name


def unknown_formats(allocation: Allocation, others: Iterable[str]) -> tuple[str, ...]:
    """Return the formats of an allocation that are neither ours nor others known, so known by bits alone.

    Raises:
        InputError: One differs from a known one by the case of its letters.
    """
    known = {name.upper(): name for name in (*others, *QUANTIZERS)}
    found: dict[str, None] = {}
    for at, layer in enumerate(allocation.layers):
        meant = known.get(layer.format.upper(), layer.format)
        if meant != layer.format:
            place = f"layer {at} ({layer.name})"
            cure = f"Did you mean {meant!r}?"
            raise InputError("no such format", place=place, field="format", found=layer.format, cure=cure)
        if stored_name(meant).upper() not in known and meant.upper() not in known:
            found[meant] = None
    return tuple(found)


def asked_storage(layer: LayerChoice) -> Storage:
    """Return how the allocation wants a layer stored; a format of no quantizer is known by its bits alone."""
    name = stored_name(layer.format)
    if name in QUANTIZERS:
        quantizer = QUANTIZERS[name]
        return Storage(
            name,
            quantizer.kind,
            code_bits(quantizer),
            layer.bits,
            _is_symmetric(quantizer),
            granularity=_granularity(quantizer.granularity, quantizer.kind, layer),
        )
    # What is left of whole bits is taken for scales of 16: 4.5 are four and a scale for each 32 weights.
    whole = math.floor(layer.bits) if layer.bits >= 2 else layer.bits
    shared: Granularity = round(_SCALE_BITS / (layer.bits - whole)) if layer.bits > whole else "channel"
    return Storage(name, "", whole, layer.bits, granularity=_granularity(shared, "", layer))


def known_storage(name: str, layer: LayerChoice, settings: Mapping[str, Any] | None = None) -> Storage:
    """Return how one of our formats stores a layer.

    Args:
        name: A name of `evolve.quantizers`.
        layer: The layer.
        settings: How the target says it.
    """
    quantizer = QUANTIZERS[name]
    # Any of the lengths will do: they are those that give the allocation's bits.
    length = (*row_lengths(layer), layer.num_params)[0]
    bits = quantizer.bits(layer.shape or (layer.num_params // length, length))
    return Storage(
        name,
        quantizer.kind,
        code_bits(quantizer),
        bits,
        _is_symmetric(quantizer),
        settings or {},
        granularity=_granularity(quantizer.granularity, quantizer.kind, layer),
    )


def plain_storages(layer: LayerChoice, names: Iterable[str] = PLAIN) -> list[Storage]:
    """Return the ways to leave a layer alone."""
    return [known_storage(name, layer) for name in names]


def code_bits(quantizer: Quantizer) -> float:
    """Return the bits of a weight's code: 8/5 for five ternary weights in a byte."""
    many = 840  # a multiple of what any packing puts in a word
    return 8 * quantizer.packing.num_bytes(many) / many


def group_size(name: str) -> int | None:
    """Return how many weights of a row share a scale in one of our formats; None for a row or more."""
    granularity = QUANTIZERS[name].granularity
    return granularity if isinstance(granularity, int) else None


def row_lengths(layer: LayerChoice) -> tuple[int, ...]:
    """Return the lengths that the layer's rows can have.

    Where the shape is unknown, the bits of its format tell: scales are counted in them, so only some
    lengths give just these bits. None at all where they tell nothing.
    """
    if layer.shape is not None:
        return layer.shape[-1:]
    return _lengths(stored_name(layer.format), layer.num_params, layer.bits)


@cache
def _lengths(name: str, weights: int, bits: float) -> tuple[int, ...]:
    if name not in QUANTIZERS:
        return ()
    small = [each for each in range(1, math.isqrt(weights) + 1) if weights % each == 0]
    divisors = sorted({*small, *(weights // each for each in small)})
    stored, tolerance = bits * weights / 8, max(0.25, 1e-9 * weights)
    quantizer = QUANTIZERS[name]
    fitting = [
        length
        for length in divisors
        if abs(quantizer.num_bytes((weights // length, length)) - stored) < tolerance
    ]
    return () if fitting == divisors else tuple(fitting)


def divides(size: int | None, layer: LayerChoice) -> bool:
    """Return whether groups of that size divide the layer's rows, as far as is known of them."""
    return size is None or all(length % size == 0 for length in row_lengths(layer))


def has_axes(layer: LayerChoice, *counts: int) -> bool:
    """Return whether the layer's weight has so many axes, or its shape is unknown."""
    return layer.shape is None or len(layer.shape) in counts


def every_name(layer: LayerChoice) -> tuple[str, ...]:
    """Return the names under which the network uses a layer's weight."""
    return layer.name, *layer.aliases


def is_module(layer: LayerChoice) -> bool:
    """Return whether a layer is a module, or stacks those of experts; ``in_proj_weight`` is neither."""
    if is_stack(layer):
        return all(map(split_stack, every_name(layer)))
    return not any("weight" in name.rpartition(".")[2] for name in every_name(layer))


def inner_modules(names: Iterable[str]) -> frozenset[str]:
    """Return the modules whose weight is read but which are never called: those of torch's own attention."""
    known = set(names)
    parents = (name.removesuffix("out_proj") for name in known if name.endswith("out_proj"))
    return frozenset(f"{each}out_proj" for each in parents if f"{each}in_proj_weight" in known)


def _granularity(shared: Granularity, family: str, layer: LayerChoice) -> Granularity:
    """Return which of a layer's weights share a scale: a group as long as a channel is one."""
    if isinstance(shared, int):
        if layer.shape is None:
            length = (*row_lengths(layer), layer.num_params)[0]
        else:
            length = layer.num_params // (layer.shape[0] if len(layer.shape) > 1 else 1)
        return shared if shared < length else "channel"
    return "channel" if family == "float" else shared


def _is_symmetric(quantizer: Quantizer) -> bool:
    return quantizer.scheme.zero_point_bits == 0
