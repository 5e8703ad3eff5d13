"""The model view: all that a rule sees of a model.

The arrays have shape (N,) for the N layers in view. A view can hold several models side by
side; N is then the number of all their layers, and whatever a rule asks of "the model" is
answered for each layer's own model. Arrays that depend on a rule's parameters have shape
(P, N) for P parameter vectors evaluated together, and tables have the K formats first:
(K, P or 1, N).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from evolve.errors import RuleError, SignalError
from evolve.profiles import LAYER_TYPES, ModelProfile
from evolve.signals import (
    LEVELS,
    MEASURED_SIGNALS,
    MEASURED_TABLES,
    PER_LAYER_SIGNALS,
    Level,
    level_index,
)

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
ChoiceArray = npt.NDArray[np.uint8]
_Array = TypeVar("_Array", bound=npt.NDArray[Any])


def _frozen(array: _Array) -> _Array:
    array.setflags(write=False)
    return array


def measured_everywhere(profiles: Sequence[ModelProfile]) -> tuple[str, ...]:
    """Return the names of the measurements that rules may read of all these models, those of layers first."""
    return tuple(
        name
        for names, axes in ((MEASURED_SIGNALS, 1), (MEASURED_TABLES, 2))
        for name in names
        if all(np.ndim(each.measurements.get(name, 0.0)) == axes for each in profiles)
    )


class ModelView:
    """The layers of one model, or of several models side by side, as a rule sees them.

    The view itself keeps the information level: reading above it raises `SignalError`.

    Args:
        profiles: The models, all with the same formats.
        level: The information level that rules may read.

    Attributes:
        formats: Names of the K formats, by increasing bits.
        offsets: (M + 1,) first layer of each model, then N.
    """

    def __init__(self, profiles: Sequence[ModelProfile], level: str = "curves") -> None:
        formats = profiles[0].formats
        if any(profile.formats != formats for profile in profiles):
            raise ValueError("profiles: expected the same formats in every model of a view")
        self.formats = tuple(each.name for each in formats)
        self.level = LEVELS[level_index(level)]
        sizes = [profile.num_layers for profile in profiles]
        self.offsets = _frozen(np.concatenate(([0], np.cumsum(sizes))).astype(np.int64))
        self._profiles = tuple(profiles)
        self._format_bits = _frozen(np.array([each.bits for each in formats], dtype=np.float64))
        self._index = {name: np.uint8(index) for index, name in enumerate(self.formats)}
        self._owner = np.repeat(np.arange(len(sizes)), sizes)
        self._cache: dict[object, Any] = {}

    def __getattr__(self, name: str) -> FloatArray:
        # Reached only for names that are not attributes: the signals, read on first use.
        if name in MEASURED_SIGNALS or name in MEASURED_TABLES:
            values = self.__dict__[name] = self._measured(name)
            return values
        signal = PER_LAYER_SIGNALS.get(name)
        if signal is None or name.startswith("_"):
            raise AttributeError(
                f"models have no {name}; a rule may read {', '.join(PER_LAYER_SIGNALS)}, is_type(...), "
                "sensitivity(format), bits, loss"
            )
        self._require(signal.level, name)
        values = _frozen(np.concatenate([self._read(profile, name) for profile in self._profiles]))
        self.__dict__[name] = values
        return values

    def __setattr__(self, name: str, value: object) -> None:
        # One view serves every rule of a run: none may change what the others see.
        if "_cache" in self.__dict__:
            raise RuleError(f"a rule may not set model.{name}")
        super().__setattr__(name, value)

    def _measured(self, name: str) -> FloatArray:
        """Return what was measured, (N,), or a table of it, (K, 1, N)."""
        axes = 2 if name in MEASURED_TABLES else 1
        known = MEASURED_TABLES[name] if axes == 2 else MEASURED_SIGNALS[name]
        self._require(known.level, name)
        for profile in self._profiles:
            found = profile.measurements.get(name)
            if found is None or found.ndim != axes:
                each = "one number a layer and format" if axes == 2 else "one number a layer"
                held = ", ".join(profile.measurements) or "none"
                raise RuleError(
                    f"the rule reads model.{name}, {each}, which the profile of {profile.name} does not hold "
                    f"among its measurements ({held})"
                )
        values = np.concatenate([profile.measurements[name] for profile in self._profiles])
        return _frozen(np.ascontiguousarray(values.T)[:, None, :] if axes == 2 else values)

    @staticmethod
    def _read(profile: ModelProfile, name: str) -> FloatArray:
        if name == "edge_distance":
            # From whole numbers, so that the two ends are exactly symmetric.
            last = profile.num_layers - 1
            return np.minimum(profile.layer_index, last - profile.layer_index) / max(last, 1)
        if name == "depth":
            return np.full(profile.num_layers, float(profile.num_layers))
        return np.asarray(getattr(profile, name), dtype=np.float64)

    def _require(self, level: Level, what: str) -> None:
        if level_index(level) > level_index(self.level):
            raise SignalError(f"{what} needs the signals of level {level}, this run allows {self.level}")

    @property
    def num_layers(self) -> int:
        """N, the number of layers in view."""
        return int(self.offsets[-1])

    def is_type(self, *names: str) -> BoolArray:
        """Return (N,) truth values: is the layer of one of these types?

        Raises:
            RuleError: There is no such layer type.
        """
        mask = self._cache.get(names)
        if mask is None:
            for name in names:
                if name not in LAYER_TYPES:
                    raise RuleError(f"is_type: expected one of {', '.join(LAYER_TYPES)}, found {name!r}")
            types = np.array([each for profile in self._profiles for each in profile.layer_type])
            mask = self._cache[names] = _frozen(np.isin(types, names))
        return mask

    def by_type(self, otherwise: FloatArray | float, **numbers: FloatArray | float) -> FloatArray:
        """Return (…, N) one number a layer type.

        Args:
            otherwise: (P, 1) or a number, for layers of every other type.
            numbers: (P, 1) or a number for each layer type that is named.

        Raises:
            RuleError: There is no such layer type.
        """
        key = ("by_type", *numbers)
        places = self._cache.get(key)
        if places is None:
            self.is_type(*numbers)
            types = np.array([each for profile in self._profiles for each in profile.layer_type])
            found = [types == name for name in numbers]
            places = self._cache[key] = _frozen(np.select(found, range(1, len(found) + 1), 0))
        columns = np.broadcast_arrays(*map(np.atleast_1d, (otherwise, *numbers.values())))
        return np.asarray(np.take(np.concatenate(columns, axis=-1), places, axis=-1))

    def sensitivity(self, name: str) -> FloatArray:
        """Return (N,) the loss of accuracy when a layer alone is put in the named format.

        Raises:
            SignalError: The run does not allow reading curves.
            RuleError: The models do not have this format.
        """
        self._require("curves", f'sensitivity("{name}")')
        return self._sensitivities[self._format(name)]

    @cached_property
    def _sensitivities(self) -> FloatArray:
        columns = np.concatenate([profile.sensitivity for profile in self._profiles]).T
        return _frozen(np.ascontiguousarray(columns))

    @cached_property
    def bits(self) -> FloatArray:
        """(K, 1, 1) bits per weight of each format."""
        return self._format_bits[:, None, None]

    @cached_property
    def loss(self) -> FloatArray:
        """(K, 1, N) predicted loss −log(1 − sensitivity) of each layer in each format; losses add up.

        Raises:
            SignalError: The run does not allow reading curves.
        """
        self._require("curves", "loss")
        # Adding 0 turns the -0 of an untouched layer into 0.
        return _frozen(-np.log1p(-self._sensitivities) + 0.0)[:, None, :]

    def _format(self, choice: str | ChoiceArray) -> np.uint8 | ChoiceArray:
        if not isinstance(choice, str):
            return choice
        index = self._index.get(choice)
        if index is None:
            raise RuleError(
                f"expected one of the model's formats {', '.join(self.formats)}, found {choice!r}"
            )
        return index

    def where(self, mask: BoolArray, chosen: str | ChoiceArray, otherwise: str | ChoiceArray) -> ChoiceArray:
        """Return format indices: ``chosen`` where the mask holds, ``otherwise`` elsewhere."""
        return np.where(mask, self._format(chosen), self._format(otherwise))

    def select(
        self, *clauses: tuple[BoolArray, str | ChoiceArray], otherwise: str | ChoiceArray
    ) -> ChoiceArray:
        """Return format indices by the first clause ``(mask, format)`` that holds, else ``otherwise``."""
        chosen: Any = self._format(otherwise)
        for mask, name in reversed(clauses):
            chosen = np.where(mask, self._format(name), chosen)
        if np.ndim(chosen) == 0:
            return np.full(self.num_layers, chosen, dtype=np.uint8)
        return np.asarray(chosen)

    def cheapest(self, cost: FloatArray) -> ChoiceArray:
        """Return the index of each layer's format of least cost; the narrower at a tie.

        Args:
            cost: (K, 1 or P, 1 or N) costs.

        Raises:
            RuleError: The shape is another.
        """
        table = self._table(cost, "cheapest: cost")
        least, chosen = table[0], np.zeros(table.shape[1:], dtype=np.uint8)
        # Format by format: `argmin` along the first axis takes five times as long.
        for index, costs in enumerate(table[1:], 1):
            chosen = np.maximum(chosen, (costs < least) * np.uint8(index))
            least = np.minimum(least, costs)
        if np.isnan(least).any():
            return np.asarray(np.argmin(table, axis=0), dtype=np.uint8)
        return chosen

    def narrowest(self, allowed: BoolArray) -> ChoiceArray:
        """Return the index of each layer's narrowest allowed format, of the widest where none is.

        Args:
            allowed: (K, 1 or P, 1 or N) truth values.

        Raises:
            RuleError: The shape is another.
        """
        table = self._table(allowed, "narrowest: allowed")
        first = np.argmax(table, axis=0)
        return np.where(table.any(axis=0), first, len(self.formats) - 1).astype(np.uint8)

    def _table(self, values: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
        """Return a table at full width; one without its three axes would be misread silently."""
        K, N = len(self.formats), self.num_layers
        shape = np.shape(values)
        if len(shape) != 3 or shape[0] not in (1, K) or shape[2] not in (1, N):
            raise RuleError(
                f"{name}: expected shape (K, 1 or P, 1 or N) with K = {K} and N = {N}, found {shape}"
            )
        return np.broadcast_to(values, (K, shape[1], N))

    def total(self, values: FloatArray | BoolArray) -> FloatArray:
        """Return, at every layer, the sum of (…, N) values over its model."""
        full = self._at_full_width(values)
        sums = np.asarray(np.add.reduceat(full, self.offsets[:-1], axis=-1, dtype=np.float64))
        return sums[..., self._owner]

    def mean(self, values: FloatArray | BoolArray) -> FloatArray:
        """Return, at every layer, the mean of (…, N) values over its model."""
        return self.total(values) / self.depth

    def fraction(self, mask: BoolArray) -> FloatArray:
        """Return, at every layer, the fraction of its model's layers where the mask holds."""
        return self.mean(mask)

    def largest(self, values: FloatArray) -> FloatArray:
        """Return, at every layer, the largest of (…, N) values over its model."""
        full = self._at_full_width(values)
        return np.asarray(np.maximum.reduceat(full, self.offsets[:-1], axis=-1))[..., self._owner]

    def rank(self, values: FloatArray) -> FloatArray:
        """Return each layer's rank by value within its model, from 0 (least) to 1 (largest).

        Layers of equal value rank in the order of the model.
        """
        order = self._order(values)
        ranks = np.empty(order.shape)
        places = np.arange(self.num_layers) - self.offsets[:-1][self._owner]
        np.put_along_axis(ranks, order, np.broadcast_to(places, order.shape).astype(np.float64), axis=-1)
        return ranks / np.maximum(self.depth - 1.0, 1.0)

    def quantile(self, values: FloatArray, fraction: FloatArray | float) -> FloatArray:
        """Return, at every layer, a quantile of (…, N) values over its model, interpolated linearly.

        Args:
            values: (…, N) values.
            fraction: (P, 1) or a number: 0 is the least value, 1 the largest; beyond, the nearest of them.
        """
        ordered = np.array(self._at_full_width(values))
        for first, end in pairwise(self.offsets):
            ordered[..., first:end].sort(axis=-1)
        place = np.clip(fraction, 0.0, 1.0) * (self._sizes - 1.0)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, self._sizes - 1)
        shape = np.broadcast_shapes(ordered.shape[:-1], below.shape[:-1])
        ordered = np.broadcast_to(ordered, (*shape, self.num_layers))
        first = self.offsets[:-1]
        low = np.take_along_axis(ordered, np.broadcast_to(first + below, (*shape, len(first))), axis=-1)
        high = np.take_along_axis(ordered, np.broadcast_to(first + above, (*shape, len(first))), axis=-1)
        return np.asarray(low + (high - low) * (place - below))[..., self._owner]

    @cached_property
    def _sizes(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)

    def bits_of(self, choices: ChoiceArray) -> FloatArray:
        """Return the bits per weight of (…, N) chosen formats."""
        return np.asarray(np.take(self._format_bits, choices))

    def pick(self, table: FloatArray, choices: ChoiceArray) -> FloatArray:
        """Return (…, N) the values of a (K, 1 or P, 1 or N) table at (…, N) chosen formats."""
        full = self._table(table, "pick: table")
        rows = np.broadcast_to(choices, np.broadcast_shapes(full.shape[1:], np.shape(choices)))
        picked = np.broadcast_to(full[0], rows.shape)
        # Format by format: `take_along_axis` takes three times as long.
        for index, values in enumerate(full[1:], 1):
            picked = np.where(rows == index, values, picked)
        return picked

    def running_total(self, values: FloatArray, score: FloatArray) -> FloatArray:
        """Return the sum of (…, N) values over its model's layers of lower (…, N) score, its own included."""
        return self.share_below(values, score) * self.total(values)

    def share_below(self, weights: FloatArray, score: FloatArray) -> FloatArray:
        """Return the share of its model's weights held by layers of lower score, a layer's own included.

        Args:
            weights: (…, N) what is added up.
            score: (…, N) the order in which it is added up, lowest first.
        """
        order = self._order(score)
        weighed = np.broadcast_to(weights, np.broadcast_shapes(np.shape(weights), order.shape)).astype(
            np.float64
        )
        order = np.broadcast_to(order, weighed.shape)
        running = np.take_along_axis(weighed, order, axis=-1)
        # Model by model: one long sum would let the rounding of one model reach the next.
        for first, end in pairwise(self.offsets):
            np.cumsum(running[..., first:end], axis=-1, out=running[..., first:end])
        shares = np.empty_like(running)
        np.put_along_axis(shares, order, running, axis=-1)
        return shares / self.total(weighed)

    def _order(self, values: FloatArray) -> npt.NDArray[np.intp]:
        """Return (…, N) the layers sorted by value within each model."""
        full = self._at_full_width(values)
        if not self._in_order:
            keys = np.broadcast_to(self.relative_position, full.shape), full
            return np.lexsort((*keys, np.broadcast_to(self._owner, full.shape)), axis=-1)
        order = np.empty(full.shape, dtype=np.intp)
        for first, end in pairwise(self.offsets):
            order[..., first:end] = np.argsort(full[..., first:end], axis=-1, kind="stable") + first
        return order

    def _at_full_width(self, values: FloatArray | BoolArray) -> FloatArray:
        return np.broadcast_to(values, np.broadcast_shapes(np.shape(values), (self.num_layers,)))

    @cached_property
    def _in_order(self) -> bool:
        """Whether the rows stand in the order of the models' layers."""
        return all(bool((np.diff(profile.layer_index) > 0).all()) for profile in self._profiles)
