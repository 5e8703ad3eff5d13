"""Floating-point formats: plain casts, casts with a scale, and blocks with a shared scale (MX, NV).

Shapes: N groups of at most M weights, short groups filled up with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolve.quantizers.clipping import absmax
from evolve.quantizers.minifloat import FP4_E2M1, FP8_E4M3, Minifloat
from evolve.quantizers.scales import SCALE_BYTES, divide, load_scales, store_scales
from evolve.quantizers.schemes import Counts, FloatArray, Parts

_E8M0_BIAS = 127


@dataclass(frozen=True)
class Float32:
    """The weights as they are."""

    group_bytes = 0
    tensor_bytes = 0
    zero_point_bits = 0

    def encode(self, values: FloatArray, _counts: Counts) -> Parts:
        """Return the bits of weights, (N, M)."""
        return Parts(values.view(np.uint32))

    def decode(self, parts: Parts) -> FloatArray:
        """Return the weights of these bits, (N, M)."""
        return parts.symbols.astype(np.uint32).view(np.float32)


@dataclass(frozen=True)
class Cast:
    """The nearest number of a narrower format, ties to even; what is too large becomes the largest.

    Attributes:
        number: The narrower format.
    """

    number: Minifloat

    group_bytes = 0
    tensor_bytes = 0
    zero_point_bits = 0

    def encode(self, values: FloatArray, _counts: Counts) -> Parts:
        """Return the bits of the nearest numbers, (N, M)."""
        return Parts(saturate(values, self.number))

    def decode(self, parts: Parts) -> FloatArray:
        """Return the numbers of these bits, (N, M)."""
        return self.number.decode(parts.symbols)


@dataclass(frozen=True)
class ScaledCast:
    """A cast of weights that a scale in 16 bits brings to the format's full range.

    Attributes:
        number: The narrower format.
    """

    number: Minifloat

    group_bytes = SCALE_BYTES
    tensor_bytes = 0
    zero_point_bits = 0

    def encode(self, values: FloatArray, _counts: Counts) -> Parts:
        """Return codes and scales of weights by group, (N, M)."""
        stored = store_scales(absmax(values) / np.float32(self.number.max))
        return Parts(saturate(divide(values, load_scales(stored)), self.number), stored)

    def decode(self, parts: Parts) -> FloatArray:
        """Return the weights of these codes and scales, (N, M)."""
        return self.number.decode(parts.symbols) * load_scales(parts.scales)[:, None]


@dataclass(frozen=True)
class MicroscalingFP4:
    """FP4 E2M1 with one power of two a block, stored as its exponent in a byte (E8M0).

    The exponent is ``floor(log2 absmax) − 2``, two being that of the largest element, 6; elements beyond 6
    saturate (OCP Microscaling Formats 1.0, 6.3).
    """

    group_bytes = 1
    tensor_bytes = 0
    zero_point_bits = 0

    def encode(self, values: FloatArray, _counts: Counts) -> Parts:
        """Return codes and biased exponents of weights by group, (N, M)."""
        exponents = np.frexp(absmax(values))[1] - 3
        # No weight of float32 has an exponent too large; a block of zeros takes any.
        biased = np.maximum(exponents + _E8M0_BIAS, 0).astype(np.uint8)
        scaled = np.ldexp(values, _E8M0_BIAS - biased.astype(np.int32)[:, None])
        return Parts(FP4_E2M1.encode(scaled), biased)

    def decode(self, parts: Parts) -> FloatArray:
        """Return the weights of these codes and exponents, (N, M)."""
        exponents = parts.scales.astype(np.int32)[:, None] - _E8M0_BIAS
        weights: FloatArray = np.ldexp(FP4_E2M1.decode(parts.symbols), exponents)
        return weights


@dataclass(frozen=True)
class NvidiaFP4:
    """FP4 E2M1 with an FP8 E4M3 scale a block and one float32 scale for the tensor (NVFP4).

    The tensor's scale, ``absmax / (6·448)``, brings the largest block's scale to the largest E4M3 number.
    """

    group_bytes = 1
    tensor_bytes = 4
    zero_point_bits = 0

    def encode(self, values: FloatArray, _counts: Counts) -> Parts:
        """Return codes, scales of the blocks as bits of E4M3, and the tensor's scale."""
        largest = absmax(values)
        overall = largest.max() / np.float32(FP4_E2M1.max * FP8_E4M3.max)
        relative = largest / np.float32(FP4_E2M1.max) / (overall if overall > 0 else np.float32(1))
        # A block with anything in it keeps a scale, however small.
        relative[largest > 0] = np.maximum(relative[largest > 0], FP8_E4M3.decode(np.ones(1, np.uint32)))
        scales = saturate(relative, FP8_E4M3).astype(np.uint8)
        tensor_scale = np.array([overall], np.float32)
        scaled = divide(values, FP8_E4M3.decode(scales) * tensor_scale)
        return Parts(FP4_E2M1.encode(scaled), scales, tensor_scale=tensor_scale)

    def decode(self, parts: Parts) -> FloatArray:
        """Return the weights of these codes and scales, (N, M)."""
        scales = FP8_E4M3.decode(parts.scales) * parts.tensor_scale
        return FP4_E2M1.decode(parts.symbols) * scales[:, None]


def saturate(values: FloatArray, number: Minifloat) -> NDArray[np.uint32]:
    """Return the bits of the nearest finite numbers of a format, of the same shape."""
    largest = np.float32(number.max)
    return number.encode(np.clip(values, -largest, largest))
