"""Model profiles: all that is known of one model, one row a layer.

Shapes are written with L, the number of layers, and K, the number of formats.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolve.fields import Field, fault_in, near_match
from evolve.formats import PrecisionFormat
from evolve.layer_groups import (
    check_aliases,
    check_axes,
    check_experts,
    check_names,
    check_shapes,
    check_ties,
)
from evolve.layer_tables import LayerTables, check_bits, find_table, freeze_tables

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LAYER_TYPES = ("Embedding", "Conv", "Linear", "Attention", "LayerNorm", "Classifier")

# Above this, sums of parameters are no longer exact in float64.
MOST_PARAMS = 2**53
# Allocations are uint8 indices into the formats.
MOST_FORMATS = 255


_NUMBER = (int, float)
_COUNT = Field(f"a whole number from 1 to {MOST_PARAMS}", int, 1, MOST_PARAMS)
_EXTENT = Field("a finite number, at least 0", _NUMBER, 0)
SENSITIVITY = Field("a number in [0, 1)", _NUMBER, 0, float(np.nextafter(1, 0)))
STATISTICS = {
    "weight_mean": Field("a finite number", _NUMBER),
    "weight_std": _EXTENT,
    "weight_range": _EXTENT,
    "activation_range": _EXTENT,
    "gradient_sensitivity": Field("a number in [0, 1]", _NUMBER, 0, 1),
}
LAYER_FIELDS = {
    "layer_idx": Field("a whole number from 0 to L - 1, another in each layer", int, 0, MOST_PARAMS),
    "num_layers": Field("the number of layers", int),
    "layer_type": Field(f"one of {', '.join(LAYER_TYPES)}", str),
    "num_params": _COUNT,
    "total_params": Field("the sum of num_params", int),
    **STATISTICS,
    "sensitivity": Field("a list of numbers in [0, 1), one a format", list),
}
_ARRAYS = {
    "layer_index": LAYER_FIELDS["layer_idx"],
    "num_params": _COUNT,
    **STATISTICS,
    "sensitivity": SENSITIVITY,
}
PROFILE_FIELDS = {
    "name": Field("a printable text that is not empty", str),
    "formats": Field("a list of format names, or of objects with name, bits and kind", list),
    "layers": Field("a list of at least one layer", list),
}


@dataclass(frozen=True, eq=False)
class ModelProfile:
    """All that is known of one model; valid by construction, its arrays read-only.

    Two profiles are equal if their ``content_hash`` is.

    Attributes:
        name: What reports call the model.
        formats: The K formats that were measured, by non-decreasing bits.
        layer_type: One of ``LAYER_TYPES`` a layer, (L,).
        layer_index: The layer's position in the model, a permutation of 0 … L-1, (L,).
        num_params: Number of weights, (L,).
        weight_mean: Mean of the weights, (L,).
        weight_std: Standard deviation of the weights, (L,).
        weight_range: Extent of the weights, (L,).
        activation_range: Extent of the activations, (L,).
        gradient_sensitivity: Relative size of the loss's gradient, in [0, 1], (L,).
        sensitivity: Loss of accuracy with this layer alone in this format, in [0, 1), (L, K).
        description: One line for people.
        seed: The seed of a synthetic model.
        source: Where the numbers come from.
        layer_names: What the network calls each layer, (L,), or empty.
        layer_shapes: Extents of each layer's weight, output channels first, (L,), or empty where they are
            not known. Like names they are for people and exports, never for rules.
        layer_aliases: The other names under which a network uses each layer's weight, (L,), or empty.
        channel_axes: The axis of the output channels in each layer's weight as the network has it, (L,), or
            empty where it is the first.
        num_experts: Number of matrices that each layer's weight stacks, (L,), or empty where all are one.
        tied_layers: Groups of layers, by position in ``layer_type``, that share one format.
        layer_bits: Bits per weight of each layer in each format, (L, K), where scales make them
            differ with a layer's shape; None where ``bits`` holds for every layer.
        costs: By name, a further cost of each layer, (L,), or in each format, (L, K).
        measurements: By name, what else was measured, (L,) or (L, K).
        provenance: How it was measured: JSON values, for people and tools, never for rules.

    Raises:
        ProfileError: A shape or a value is not valid.
    """

    name: str
    formats: tuple[PrecisionFormat, ...]
    layer_type: tuple[str, ...]
    layer_index: IntArray
    num_params: IntArray
    weight_mean: FloatArray
    weight_std: FloatArray
    weight_range: FloatArray
    activation_range: FloatArray
    gradient_sensitivity: FloatArray
    sensitivity: FloatArray
    description: str = ""
    seed: int | None = None
    source: str = ""
    layer_names: tuple[str, ...] = ()
    layer_shapes: tuple[tuple[int, ...], ...] = ()
    tied_layers: tuple[tuple[int, ...], ...] = ()
    layer_bits: FloatArray | None = None
    costs: LayerTables = field(default_factory=dict)
    measurements: LayerTables = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    layer_aliases: tuple[tuple[str, ...], ...] = ()
    channel_axes: tuple[int, ...] = ()
    num_experts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", tuple(self.formats))
        object.__setattr__(self, "layer_type", tuple(self.layer_type))
        _check_heading(self)
        for name, known in _ARRAYS.items():
            kind = np.int64 if known.kind is int else np.float64
            # A copy, so that no one else can write into a frozen profile.
            array = np.array(getattr(self, name)).astype(kind, order="C", casting="same_kind")
            object.__setattr__(self, name, _frozen(array))
        _check_arrays(self)
        self._settle_extras()

    def _settle_extras(self) -> None:
        L, K = len(self.layer_type), len(self.formats)
        object.__setattr__(self, "layer_names", tuple(self.layer_names))
        object.__setattr__(self, "tied_layers", tuple(tuple(map(int, each)) for each in self.tied_layers))
        object.__setattr__(self, "layer_shapes", tuple(tuple(each) for each in self.layer_shapes))
        # Where no layer has one there are none, so that all such profiles are written alike.
        aliases = tuple(tuple(each) for each in self.layer_aliases)
        object.__setattr__(self, "layer_aliases", aliases if any(aliases) else ())
        object.__setattr__(self, "channel_axes", tuple(self.channel_axes) if any(self.channel_axes) else ())
        stacked = any(each != 1 for each in self.num_experts)
        object.__setattr__(self, "num_experts", tuple(self.num_experts) if stacked else ())
        check_names(self.layer_names, L)
        check_shapes(self.layer_shapes, self.num_params.tolist())
        check_aliases(self.layer_aliases, self.layer_names, L)
        check_axes(self.channel_axes, L)
        check_experts(self.num_experts, self.num_params.tolist())
        check_ties(self.tied_layers, L)
        if self.layer_bits is not None:
            object.__setattr__(self, "layer_bits", _frozen(np.array(self.layer_bits, dtype=np.float64)))
            check_bits(self.bits_table, L, self.format_names)
        for kind in ("costs", "measurements"):
            object.__setattr__(self, kind, freeze_tables(kind, getattr(self, kind), L, K))
        object.__setattr__(self, "provenance", MappingProxyType(copy.deepcopy(dict(self.provenance))))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelProfile) and self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)

    def __reduce__(self) -> tuple[type[ModelProfile], tuple[Any, ...]]:
        # Rebuilt by the constructor: plain unpickling would leave the arrays writeable.
        values = (getattr(self, each.name) for each in fields(self))
        return type(self), tuple(
            dict(value) if isinstance(value, MappingProxyType) else value for value in values
        )

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.layer_type)

    @cached_property
    def total_params(self) -> int:
        """Number of weights of the whole model."""
        return int(self.num_params.sum())

    @cached_property
    def format_names(self) -> tuple[str, ...]:
        """Names of the formats, (K,)."""
        return tuple(each.name for each in self.formats)

    @cached_property
    def bits(self) -> FloatArray:
        """Bits per weight of each format, (K,)."""
        return _frozen(np.array([each.bits for each in self.formats], dtype=np.float64))

    @cached_property
    def bits_table(self) -> FloatArray:
        """Bits per weight of each layer in each format, (L, K)."""
        shape = (self.num_layers, len(self.formats))
        return _frozen(np.broadcast_to(self.bits, shape)) if self.layer_bits is None else self.layer_bits

    @property
    def own_bits(self) -> FloatArray:
        """Bits per weight as scores take them: (L, K) where layers have bits of their own, else (K,)."""
        return self.bits if self.layer_bits is None else self.layer_bits

    def cost_table(self, name: str) -> FloatArray:
        """Return what each layer costs in each format, (L, K).

        Args:
            name: ``size``, which is in bits, scales counted; or one of ``costs``, in its own unit. A
                cost of one number a layer is the same in every format.

        Raises:
            ProfileError: There is no such cost.
        """
        if name == "size" and "size" not in self.costs:
            return _frozen(self.num_params[:, None] * self.bits_table)
        table = find_table("costs", self.costs, name)
        return table if table.ndim == 2 else _frozen(np.broadcast_to(table[:, None], self.bits_table.shape))

    @cached_property
    def relative_position(self) -> FloatArray:
        """Position in the model from 0 (first) to 1 (last), (L,)."""
        return _frozen(self.layer_index / max(self.num_layers - 1, 1))

    @cached_property
    def param_fraction(self) -> FloatArray:
        """Share of the model's weights that the layer holds, (L,)."""
        return _frozen(self.num_params / self.total_params)

    @cached_property
    def loss(self) -> FloatArray:
        """-log(1 - sensitivity): losses add up where retentions multiply, (L, K)."""
        # Adding 0 turns the -0 of an untouched layer into 0.
        return _frozen(-np.log1p(-self.sensitivity) + 0.0)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of everything that a score or a rule can depend on, as hexadecimal digits."""
        content: dict[str, Any] = {name: getattr(self, name).tolist() for name in _ARRAYS}
        content["name"], content["layer_type"] = self.name, self.layer_type
        content["formats"] = [(each.name, float(each.bits), each.kind) for each in self.formats]
        # Only what is there, so that profiles without extras keep the hash they always had.
        if self.tied_layers:
            content["tied_layers"] = self.tied_layers
        if self.layer_bits is not None:
            content["layer_bits"] = self.layer_bits.tolist()
        for kind in ("costs", "measurements"):
            if tables := getattr(self, kind):
                content[kind] = {name: table.tolist() for name, table in tables.items()}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array


def _check_heading(profile: ModelProfile) -> None:
    if not (profile.name.strip() and profile.name.isprintable()):
        raise fault_in("bad name", None, "name", PROFILE_FIELDS["name"].expected, profile.name)
    if not 1 <= len(profile.formats) <= MOST_FORMATS:
        raise fault_in(
            "wrong number of formats", None, "formats", f"1 to {MOST_FORMATS} formats", len(profile.formats)
        )
    if len(set(profile.format_names)) < len(profile.formats):
        raise fault_in("format given twice", None, "formats", "names that differ", list(profile.format_names))
    if np.any(np.diff(profile.bits) < 0):
        raise fault_in("formats out of order", None, "formats", "non-decreasing bits", profile.bits.tolist())
    if not profile.layer_type:
        raise fault_in("no layers", None, "layers", PROFILE_FIELDS["layers"].expected, [])
    for layer, kind in enumerate(profile.layer_type):
        if kind not in LAYER_TYPES:
            cure = near_match(kind, LAYER_TYPES)
            words = LAYER_FIELDS["layer_type"].expected
            raise fault_in("unknown layer type", f"layer {layer}", "layer_type", words, kind, cure)


def _check_arrays(profile: ModelProfile) -> None:
    L, K = len(profile.layer_type), len(profile.formats)
    for name, known in _ARRAYS.items():
        array = getattr(profile, name)
        letters, shape = ("(L, K)", (L, K)) if name == "sensitivity" else ("(L,)", (L,))
        if array.shape != shape:
            raise fault_in("wrong shape", None, name, f"{letters} = {shape}", array.shape)
        # Written so that NaN, which compares false with everything, is caught too.
        outside = np.argwhere(~((array >= known.low) & (array <= known.high)))
        if len(outside):
            where = tuple(outside[0])
            label = f"{name}[{profile.format_names[where[1]]}]" if name == "sensitivity" else name
            raise fault_in("out of bounds", f"layer {where[0]}", label, known.expected, array[where].item())
    seen: set[int] = set()
    words = f"a whole number from 0 to {L - 1}, another in each layer"
    for layer, index in enumerate(profile.layer_index.tolist()):
        if index >= L or index in seen:
            problem = "given twice" if index in seen else "out of bounds"
            raise fault_in(problem, f"layer {layer}", "layer_idx", words, index)
        seen.add(index)
    # Summed as floats, which cannot overflow.
    if profile.num_params.sum(dtype=np.float64) > MOST_PARAMS:
        total = sum(profile.num_params.tolist())
        raise fault_in("too many weights", None, "num_params", f"a sum of at most {MOST_PARAMS}", total)
