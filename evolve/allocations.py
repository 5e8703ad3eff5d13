"""Allocations as data: the format of each layer of a network, on its way from a profile to real weights.

Shapes are written with L, the number of layers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from evolve.errors import ProfileError
from evolve.fields import Field, blamed_on, fault_in, near_match, parse_object, parse_value, read_json
from evolve.layer_groups import (
    ALIASES,
    AXIS,
    EXPERTS,
    TIES,
    check_aliases,
    check_names,
    check_ties,
    parse_ties,
)
from evolve.profiles import LAYER_TYPES, MOST_PARAMS, ModelProfile

_NUMBER = (int, float)
_NAME = Field("a printable text that is not empty", str)
_PREDICTION = Field("a finite number", _NUMBER)
_EXTENT = Field("a list of whole numbers, at least 1, whose product is num_params", int, 1, MOST_PARAMS)
_LAYER_FIELDS = {
    "name": _NAME,
    "kind": Field(f"one of {', '.join(LAYER_TYPES)}", str),
    "num_params": Field(f"a whole number from 1 to {MOST_PARAMS}", int, 1, MOST_PARAMS),
    "format": _NAME,
    "bits": Field("a number from 0.01 to 64", _NUMBER, 0.01, 64),
}
_OPTIONAL_LAYER_FIELDS = {
    "shape": Field(_EXTENT.expected, (list, type(None))),
    "aliases": ALIASES,
    "channel_axis": AXIS,
    "num_experts": EXPERTS,
}
_FIELDS = {"model": _NAME, "layers": Field("a list of at least one layer", list)}
_OPTIONAL_FIELDS = {
    "tied_layers": TIES,
    "source": Field("a text", str),
    "predicted": Field("an object of finite numbers", dict),
}


@dataclass(frozen=True)
class LayerChoice:
    """A layer of a network and the format it gets.

    Attributes:
        name: What the network calls the layer.
        kind: One of ``LAYER_TYPES``.
        num_params: Number of weights.
        shape: Extents of the weight; None where they are not known.
        format: The name of the format, or of the quantizer.
        bits: Bits per weight in that format, scales and zero points counted.
        aliases: The other names under which the network uses the same weight.
        channel_axis: Where the network's own weight has its output channels, which stand first in ``shape``.
        num_experts: Number of matrices that the weight is a stack of; ``shape`` is then (experts · out, in).
    """

    name: str
    kind: str
    num_params: int
    shape: tuple[int, ...] | None
    format: str
    bits: float
    aliases: tuple[str, ...] = ()
    channel_axis: int = 0
    num_experts: int = 1


@dataclass(frozen=True)
class Allocation:
    """The format of each layer of one network; valid by construction.

    Attributes:
        model: The network.
        layers: Its L layers, each with its format.
        tied_layers: Groups of layers, by position, that share one format.
        source: What made the allocation, in words.
        predicted: By name, what the profile expects of it: ``loss``, ``retention``, ``avg_bits``,
            ``size_bytes`` and the total of each cost of the profile.

    Raises:
        ProfileError: A value is not valid, or tied layers have different formats.
    """

    model: str
    layers: tuple[LayerChoice, ...]
    tied_layers: tuple[tuple[int, ...], ...] = ()
    source: str = ""
    predicted: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "tied_layers", tuple(tuple(map(int, each)) for each in self.tied_layers))
        object.__setattr__(self, "predicted", MappingProxyType(dict(self.predicted)))
        if not (self.model.strip() and self.model.isprintable()):
            raise fault_in("bad name", None, "model", _NAME.expected, self.model)
        if not self.layers:
            raise fault_in("no layers", None, "layers", _FIELDS["layers"].expected, [])
        for at, layer in enumerate(self.layers):
            _check_layer(layer, f"layer {at}")
        check_names(self.names, len(self.layers))
        check_aliases([each.aliases for each in self.layers], self.names, len(self.layers))
        check_ties(self.tied_layers, len(self.layers))
        self._check_shared()
        for name, value in self.predicted.items():
            if not math.isfinite(parse_value(value, _PREDICTION, f"predicted.{name}", None)):
                raise fault_in("out of bounds", None, f"predicted.{name}", _PREDICTION.expected, value)

    def _check_shared(self) -> None:
        for group in self.tied_layers:
            for at in group[1:]:
                first = self.layers[group[0]]
                if self.layers[at].format != first.format:
                    words = f"{first.format}, as in layer {group[0]} ({first.name}), which it is tied to"
                    cure = "Give tied layers one format."
                    place = f"layer {at} ({self.layers[at].name})"
                    raise fault_in("tie broken", place, "format", words, self.layers[at].format, cure)

    def __reduce__(self) -> tuple[type[Allocation], tuple[Any, ...]]:
        return type(self), (self.model, self.layers, self.tied_layers, self.source, dict(self.predicted))

    @property
    def names(self) -> tuple[str, ...]:
        """What the network calls its layers, (L,)."""
        return tuple(each.name for each in self.layers)

    @property
    def formats(self) -> tuple[str, ...]:
        """The format of each layer, (L,)."""
        return tuple(each.format for each in self.layers)

    @cached_property
    def total_params(self) -> int:
        """Number of weights of all layers."""
        return sum(each.num_params for each in self.layers)

    @cached_property
    def size_bits(self) -> float:
        """Bits of all weights, scales and zero points counted."""
        return math.fsum(each.num_params * each.bits for each in self.layers)

    @property
    def size_bytes(self) -> float:
        """Bytes of all weights, scales and zero points counted."""
        return self.size_bits / 8

    @property
    def avg_bits(self) -> float:
        """Bits per weight."""
        return self.size_bits / self.total_params


def allocation_of(
    profile: ModelProfile,
    choices: ArrayLike,
    source: str = "",
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Allocation:
    """Return an allocation of a profile's formats, with what the profile predicts of it.

    Args:
        profile: The network.
        choices: Format index of each layer, (L,).
        source: What made the allocation.
        shapes: Extents of the weights by the layer's name, where the profile does not know them.

    Raises:
        ProfileError: The choices have the wrong shape, a format that is not there, or break a tie.
    """
    indices = np.asarray(choices)
    L, K = profile.sensitivity.shape
    if indices.shape != (L,) or indices.dtype.kind not in "iu":
        words = f"format indices of shape (L,) = {(L,)}"
        raise fault_in("wrong shape", None, "choices", words, (indices.shape, str(indices.dtype)))
    if indices.min() < 0 or indices.max() >= K:
        raise fault_in("out of bounds", None, "choices", f"format indices 0 to {K - 1}", indices.tolist())
    rows = np.arange(L)
    names = names_of(profile)
    bits = profile.bits_table[rows, indices].tolist()
    # Profiles that know no shapes have none at all.
    known: dict[str, Sequence[int]] = dict(zip(names, profile.layer_shapes, strict=False))
    known.update(shapes or {})
    layers = tuple(
        LayerChoice(
            name=names[at],
            kind=profile.layer_type[at],
            num_params=int(profile.num_params[at]),
            shape=tuple(int(each) for each in known[names[at]]) if names[at] in known else None,
            format=profile.format_names[indices[at]],
            bits=bits[at],
            aliases=profile.layer_aliases[at] if profile.layer_aliases else (),
            channel_axis=profile.channel_axes[at] if profile.channel_axes else 0,
            num_experts=profile.num_experts[at] if profile.num_experts else 1,
        )
        for at in rows.tolist()
    )
    return Allocation(profile.name, layers, profile.tied_layers, source, predict(profile, indices))


def names_of(profile: ModelProfile) -> tuple[str, ...]:
    """Return the names of a profile's layers, (L,): ``layer_0``, ``layer_1``, … where it has none."""
    return profile.layer_names or tuple(f"layer_{at}" for at in range(profile.num_layers))


def predict(profile: ModelProfile, choices: ArrayLike) -> dict[str, float]:
    """Return what the profile expects of an allocation.

    Args:
        profile: The network.
        choices: Format index of each layer, (L,).

    Returns:
        ``loss``, ``retention`` = exp(−loss), ``avg_bits``, ``size_bytes``, and the total of each cost of
        the profile in its own unit; a cost that has one of these four names is left out.
    """
    chosen = np.arange(profile.num_layers), np.asarray(choices)
    loss = float(profile.loss[chosen].sum())
    size = float((profile.num_params * profile.bits_table[chosen]).sum())
    costs = {name: float(profile.cost_table(name)[chosen].sum()) for name in profile.costs}
    return costs | {
        "loss": loss,
        "retention": math.exp(-loss),
        "avg_bits": size / profile.total_params,
        "size_bytes": size / 8,
    }


def load_allocation(path: str | os.PathLike[str]) -> Allocation:
    """Read an allocation from a JSON file.

    Raises:
        ProfileError: The file cannot be read or is not a valid allocation.
    """
    with blamed_on(path):
        return parse_allocation(read_json(Path(path)))


def save_allocation(allocation: Allocation, path: str | os.PathLike[str]) -> None:
    """Write an allocation as JSON; the file appears whole or not at all.

    Raises:
        ProfileError: The file cannot be written.
    """
    target = Path(path)
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    text = json.dumps(allocation_to_json(allocation), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    except OSError as fault:
        with suppress(OSError):  # its name may be what is wrong
            aside.unlink()
        raise ProfileError(f"cannot be written ({fault.strerror})", file=path) from None


def allocation_to_json(allocation: Allocation) -> dict[str, Any]:
    """Return a JSON object; parsing it gives an equal allocation."""
    return {
        "model": allocation.model,
        "source": allocation.source,
        "predicted": dict(allocation.predicted),
        "tied_layers": [list(each) for each in allocation.tied_layers],
        "layers": [
            {
                "name": each.name,
                "kind": each.kind,
                "num_params": each.num_params,
                "shape": None if each.shape is None else list(each.shape),
                "format": each.format,
                "bits": each.bits,
                **({"aliases": list(each.aliases)} if each.aliases else {}),
                **({"channel_axis": each.channel_axis} if each.channel_axis else {}),
                **({"num_experts": each.num_experts} if each.num_experts != 1 else {}),
            }
            for each in allocation.layers
        ],
    }


def parse_allocation(data: object) -> Allocation:
    """Make an allocation of parsed JSON.

    Raises:
        ProfileError: Something is missing, unknown, of the wrong type or out of bounds.
    """
    if isinstance(data, dict) and "formats" in data and "model" not in data:
        cure = "`evolve allocate` makes an allocation of it."
        raise ProfileError("this is a profile, not an allocation", cure=cure)
    top = parse_object(data, _FIELDS, _OPTIONAL_FIELDS)
    predicted = {
        name: float(parse_value(value, _PREDICTION, f"predicted.{name}", None))
        for name, value in top.get("predicted", {}).items()
    }
    return Allocation(
        model=top["model"],
        layers=tuple(_parse_layer(each, f"layer {at}") for at, each in enumerate(top["layers"])),
        tied_layers=parse_ties(top.get("tied_layers", [])),
        source=top.get("source", ""),
        predicted=predicted,
    )


def _parse_layer(data: object, place: str) -> LayerChoice:
    row = parse_object(data, _LAYER_FIELDS, _OPTIONAL_LAYER_FIELDS, place)
    shape = row.pop("shape", None)
    if shape is not None:
        shape = tuple(parse_value(each, _EXTENT, "shape", place) for each in shape)
    aliases = tuple(row.pop("aliases", ()))
    return LayerChoice(shape=shape, aliases=aliases, **(row | {"bits": float(row["bits"])}))


def _check_layer(layer: LayerChoice, place: str) -> None:
    for name, known in (*_LAYER_FIELDS.items(), ("channel_axis", AXIS), ("num_experts", EXPERTS)):
        parse_value(getattr(layer, name), known, name, place)
    if layer.kind not in LAYER_TYPES:
        words = _LAYER_FIELDS["kind"].expected
        cure = near_match(layer.kind, LAYER_TYPES)
        raise fault_in("unknown layer type", place, "kind", words, layer.kind, cure)
    if not (layer.format.strip() and layer.format.isprintable()):
        raise fault_in("bad name", place, "format", _NAME.expected, layer.format)
    if layer.num_params % layer.num_experts:
        raise fault_in("out of bounds", place, "num_experts", EXPERTS.expected, layer.num_experts)
    if layer.shape is not None and math.prod(layer.shape) != layer.num_params:
        raise fault_in("wrong shape", place, "shape", f"a product of {layer.num_params}", layer.shape)
