"""Codebooks: NF4, ternary and binary weights.

Shapes: N groups of at most M weights, short groups filled up with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evolve.quantizers.clipping import absmax
from evolve.quantizers.scales import SCALE_BYTES, divide, load_scales, store_scales
from evolve.quantizers.schemes import Counts, FloatArray, Parts

NF4_LEVELS: FloatArray = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    np.float32,
)
"""The published values, Dettmers 2023, appendix E: quantiles of the normal distribution."""

THRESHOLD = 0.7
"""Share of the mean magnitude below which a weight becomes zero (Li & Liu 2016, equation 6)."""


@dataclass(frozen=True)
class NormalFloat4:
    """The nearest of 16 levels, relative to the largest magnitude of the block (Dettmers 2023)."""

    group_bytes = SCALE_BYTES
    tensor_bytes = 0
    zero_point_bits = 0

    def encode(self, values: FloatArray, _counts: Counts) -> Parts:
        """Return codes and scales of weights by group, (N, M)."""
        stored = store_scales(absmax(values))
        between = (NF4_LEVELS[1:] + NF4_LEVELS[:-1]) / 2
        codes = np.searchsorted(between, divide(values, load_scales(stored)))
        return Parts(codes.astype(np.uint8), stored)

    def decode(self, parts: Parts) -> FloatArray:
        """Return the weights of these codes and scales, (N, M)."""
        weights: FloatArray = NF4_LEVELS[parts.symbols] * load_scales(parts.scales)[:, None]
        return weights


@dataclass(frozen=True)
class Ternary:
    """Weights −α, 0 and α: zero up to a threshold, the mean magnitude of the others beyond it.

    Attributes:
        optimal: Whether the threshold is the one of least squared error, by trying all, instead of 0.7 times
            the mean magnitude, its approximation for Gaussian weights (Li & Liu 2016, equations 4 to 6).
    """

    optimal: bool = False

    group_bytes = SCALE_BYTES
    tensor_bytes = 0
    zero_point_bits = 0

    def encode(self, values: FloatArray, counts: Counts) -> Parts:
        """Return codes and scales of weights by group, (N, M); counts are the weights of each, (N,)."""
        magnitudes = np.abs(values)
        if self.optimal:
            beyond = magnitudes >= self._least_kept(magnitudes)[:, None]
        else:
            mean = magnitudes.sum(axis=1, dtype=np.float64) / counts
            beyond = magnitudes > (THRESHOLD * mean)[:, None]
        total = np.where(beyond, magnitudes, 0).sum(axis=1, dtype=np.float64)
        stored = store_scales((total / np.maximum(beyond.sum(axis=1), 1)).astype(np.float32))
        # A scale too small for its 16 bits leaves nothing.
        signs = np.sign(values) * (beyond & (load_scales(stored) > 0)[:, None])
        return Parts((signs + 1).astype(np.uint8), stored)

    def decode(self, parts: Parts) -> FloatArray:
        """Return the weights of these codes and scales, (N, M)."""
        return (parts.symbols.astype(np.float32) - 1) * load_scales(parts.scales)[:, None]

    @staticmethod
    def _least_kept(magnitudes: FloatArray) -> FloatArray:
        """Return the least magnitude that does not become zero, (N,).

        Keeping the k largest saves ``(Σ|w|)² / k`` of the squared error.
        """
        falling = -np.sort(-magnitudes, axis=1)
        saved = np.cumsum(falling, axis=1, dtype=np.float64) ** 2 / np.arange(1, falling.shape[1] + 1)
        kept = saved.argmax(axis=1)
        least: FloatArray = np.take_along_axis(falling, kept[:, None], axis=1)[:, 0]
        return least


@dataclass(frozen=True)
class Binary:
    """Weights −α and α, α their mean magnitude; zero counts as positive (Rastegari 2016, equation 6)."""

    group_bytes = SCALE_BYTES
    tensor_bytes = 0
    zero_point_bits = 0

    def encode(self, values: FloatArray, counts: Counts) -> Parts:
        """Return codes and scales of weights by group, (N, M); counts are the weights of each, (N,)."""
        mean = np.abs(values).sum(axis=1, dtype=np.float64) / counts
        return Parts((values >= 0).astype(np.uint8), store_scales(mean.astype(np.float32)))

    def decode(self, parts: Parts) -> FloatArray:
        """Return the weights of these codes and scales, (N, M)."""
        signs = 2 * parts.symbols.astype(np.float32) - 1
        scales = load_scales(parts.scales)[:, None]
        return np.where(scales > 0, signs * scales, np.float32(0))
