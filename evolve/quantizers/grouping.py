"""Splits a weight tensor into the groups that share a scale, and joins them again.

Axis 0 is the output channel; a tensor of one axis is one channel. Groups run along the flattened other axes
of a channel and never cross into the next one, so the last group of a channel may be shorter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

_Array = TypeVar("_Array", bound=NDArray[Any])

Granularity = int | Literal["tensor", "channel"]
"""Weights that share a scale: the whole tensor, a channel, or so many of a channel."""


@dataclass(frozen=True)
class Layout:
    """How a tensor falls into N groups of at most M weights.

    Attributes:
        channels: Rows that groups do not cross.
        length: Weights a row.
        size: Weights in a full group, M.
    """

    channels: int
    length: int
    size: int

    @property
    def per_channel(self) -> int:
        """Groups a row."""
        return -(-self.length // self.size)

    @property
    def num_groups(self) -> int:
        """Groups of the tensor, N."""
        return self.channels * self.per_channel

    @property
    def num_weights(self) -> int:
        """Weights of the tensor."""
        return self.channels * self.length

    def counts(self) -> NDArray[np.int64]:
        """Return the weights of each group, (N,)."""
        row = np.full(self.per_channel, self.size)
        row[-1] = self.length - self.size * (self.per_channel - 1)
        return np.tile(row, self.channels)

    def split(self, weights: _Array) -> _Array:
        """Return the weights, or their codes, by group, (N, M), short groups filled up with zeros."""
        rows = weights.reshape(self.channels, self.length)
        filling = self.per_channel * self.size - self.length
        if filling:
            rows = np.pad(rows, ((0, 0), (0, filling)))
        return cast(_Array, rows.reshape(self.num_groups, self.size))

    def join(self, groups: _Array) -> _Array:
        """Return what lies in groups, (N, M), in the order of the tensor and without the filling: (n,)."""
        rows = groups.reshape(self.channels, self.per_channel * self.size)
        return cast(_Array, rows[:, : self.length].reshape(-1))


def layout(shape: tuple[int, ...], granularity: Granularity) -> Layout:
    """Return how a tensor of that shape, none of its axes empty, falls into groups."""
    channels = shape[0] if len(shape) > 1 else 1
    length = math.prod(shape) // channels
    if granularity == "tensor":
        return Layout(1, channels * length, channels * length)
    if granularity == "channel":
        return Layout(channels, length, length)
    return Layout(channels, length, min(granularity, length))
