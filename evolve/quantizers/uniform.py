"""Integers: levels at equal distances, with or without a zero point, clipped where it costs least.

Shapes: N groups of at most M weights, short groups filled up with zeros, which every scheme keeps as zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolve.quantizers.clipping import Clipping, absmax, best_share, octav_clip, search_clip, squared_distance
from evolve.quantizers.scales import SCALE_BYTES, divide, load_scales, store_scales
from evolve.quantizers.schemes import Counts, FloatArray, Parts

NEAR = (1.0, 0.83, 0.88, 0.94, 1.06, 1.12, 1.2)
"""Multiples of OCTAV's clip that are tried: its noise model is off where groups or bits are few."""


@dataclass(frozen=True)
class Symmetric:
    """An odd number of levels around zero: ``w ≈ scale·(code − max_level)``, no zero point.

    The code of the least integer, −2^(b−1), is not used, as in ONNX Runtime and TensorRT. Without clipping
    no weight is off by more than half a step.

    Attributes:
        max_level: Steps between zero and the clip: 2^(b−1) − 1 for b bits.
        clipping: ``absmax``: none; ``mse``: the clip of least squared error by grid search; ``octav``: the
            best of OCTAV's clip, some multiples of it and none.
    """

    max_level: int
    clipping: Clipping = "absmax"

    group_bytes = SCALE_BYTES
    tensor_bytes = 0
    zero_point_bits = 0

    def encode(self, values: FloatArray, counts: Counts) -> Parts:
        """Return codes and scales of weights by group, (N, M); counts are the weights of each, (N,)."""
        largest = absmax(values)
        stored = store_scales(largest * self._share(values, counts, largest) / np.float32(self.max_level))
        levels = self._round(values, load_scales(stored))
        return Parts((levels + np.float32(self.max_level)).astype(np.uint8), stored)

    def decode(self, parts: Parts) -> FloatArray:
        """Return the weights of these codes and scales, (N, M)."""
        levels = parts.symbols.astype(np.float32) - np.float32(self.max_level)
        levels *= load_scales(parts.scales)[:, None]
        return levels

    def _share(self, values: FloatArray, counts: Counts, largest: FloatArray) -> FloatArray:
        """Return the share of each group's largest magnitude at which to clip, (N,)."""
        full = np.ones(len(values), np.float32)
        if self.clipping == "absmax":
            return full
        relative = divide(values, largest)  # whose squares are within the range of float32

        def error(share: FloatArray) -> NDArray[np.float64]:
            scales = share / np.float32(self.max_level)
            off = self._round(relative, scales)
            off *= scales[:, None]
            return squared_distance(off, relative)

        if self.clipping == "mse":
            return search_clip(len(values), error)
        share = octav_clip(relative, counts, self.max_level)
        return best_share([full, *(np.minimum(share * np.float32(each), 1) for each in NEAR)], error)

    def _round(self, values: FloatArray, scales: FloatArray) -> FloatArray:
        """Return the level of each weight, −max_level to max_level, (N, M)."""
        levels = divide(values, scales)
        np.rint(levels, out=levels)
        return np.clip(levels, -self.max_level, self.max_level, out=levels)


@dataclass(frozen=True)
class Asymmetric:
    """All 2^b levels between the least and the largest weight: ``w ≈ scale·(code − zero point)``.

    The range always holds zero, which is stored exactly; the zero point takes b bits. Without clipping a
    weight is off by half a step at most, at the ends of the range by a little more: there the rounding of
    the zero point and that of the scale, 2^(b−11) steps in FP16 and 2^(b−8) in BF16, move the last level.

    Attributes:
        bits: Bits a code.
        clipping: ``absmax``: none; ``mse``: both ends move inwards by the same share, that of least squared
            error by grid search.
    """

    bits: int
    clipping: Clipping = "absmax"

    group_bytes = SCALE_BYTES
    tensor_bytes = 0

    @property
    def zero_point_bits(self) -> int:
        """Bits of a zero point."""
        return self.bits

    @property
    def top(self) -> int:
        """The largest code."""
        return int(2**self.bits - 1)

    def encode(self, values: FloatArray, _counts: Counts) -> Parts:
        """Return codes, scales and zero points of weights by group, (N, M)."""
        # Twice the largest float32 is no float32.
        low = np.minimum(values.min(axis=1), 0).astype(np.float64)
        high = np.maximum(values.max(axis=1), 0).astype(np.float64)
        full = ((high - low) / self.top).astype(np.float32)

        share = self._share(values, low, full)
        stored = store_scales(full * share)
        scales = load_scales(stored)
        zeros = self._zero_points(low * share, scales)
        return Parts(
            self._round(values, scales, zeros).astype(np.uint8), stored, zero_points=zeros.astype(np.uint8)
        )

    def decode(self, parts: Parts) -> FloatArray:
        """Return the weights of these codes, scales and zero points, (N, M)."""
        levels = parts.symbols.astype(np.float32)
        levels -= parts.zero_points.astype(np.float32)[:, None]
        levels *= load_scales(parts.scales)[:, None]
        return levels

    def _share(self, values: FloatArray, low: NDArray[np.float64], step: FloatArray) -> FloatArray:
        """Return the share of each group's range at which to clip, (N,)."""
        if self.clipping == "absmax":
            return np.ones(len(values), np.float32)
        relative = divide(values, step)  # whose squares are within the range of float32
        least = low / np.where(step > 0, step, 1)

        def error(share: FloatArray) -> NDArray[np.float64]:
            zeros = self._zero_points(least * share, share)
            off = self._round(relative, share, zeros)
            off -= zeros[:, None]
            off *= share[:, None]
            return squared_distance(off, relative)

        return search_clip(len(values), error)

    def _zero_points(self, low: NDArray[np.float64], scales: FloatArray) -> FloatArray:
        """Return the code of zero in each group, (N,)."""
        steps = np.rint(-low / np.where(scales > 0, scales, np.inf))
        zeros: FloatArray = np.clip(steps, 0, self.top).astype(np.float32)
        return zeros

    def _round(self, values: FloatArray, scales: FloatArray, zeros: FloatArray) -> FloatArray:
        """Return the code of each weight, (N, M)."""
        codes = divide(values, scales)
        np.rint(codes, out=codes)
        codes += zeros[:, None]
        return np.clip(codes, 0, self.top, out=codes)
