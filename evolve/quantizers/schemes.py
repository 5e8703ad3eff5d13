"""What every scheme does: weights by group in, codes and scales out, and back.

Shapes: N groups of at most M weights, short groups filled up with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Counts = NDArray[np.int64]


def _nothing() -> NDArray[Any]:
    return np.zeros(0, np.uint8)


@dataclass(frozen=True, eq=False)
class Parts:
    """Codes and scales of a tensor, not yet packed.

    Attributes:
        symbols: Code of each weight, (N, M), unsigned integers.
        scales: As they are stored, (N,) or (0,).
        zero_points: Code of zero of each group, ``uint8``, (N,) or (0,).
        tensor_scale: Scale of the scales, ``float32``, (1,) or (0,).
    """

    symbols: NDArray[Any]
    scales: NDArray[Any] = field(default_factory=_nothing)
    zero_points: NDArray[np.uint8] = field(default_factory=_nothing)
    tensor_scale: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))


class Scheme(Protocol):
    """A way to quantize groups of weights."""

    @property
    def group_bytes(self) -> int:
        """Bytes of a group's scale."""

    @property
    def zero_point_bits(self) -> int:
        """Bits of a group's zero point."""

    @property
    def tensor_bytes(self) -> int:
        """Bytes of a tensor's scale."""

    def encode(self, values: FloatArray, counts: Counts, /) -> Parts:
        """Return codes and scales of finite weights, (N, M); counts are the weights of each group, (N,)."""

    def decode(self, parts: Parts) -> FloatArray:
        """Return the weights of these codes and scales, (N, M)."""
